"""`isoflop predict` at a stated size and number of tokens, and what it refuses."""

from pathlib import Path

import pytest

TABLE = Path(__file__).parents[1] / "cases" / "token-multiplier-grid.csv"
COMMON = ("predict", str(TABLE), "--columns", "variant=dataset", "--resamples", "20")


def test_json_has_the_loss_of_every_variant_and_how_they_compare(told):
    at = ("--parameters", "7e9", "--tokens", "4e12")
    found = told(*COMMON, *at)
    assert [(one["variant"], one["way"]) for one in found["predictions"]] == [
        (name, way) for name in ("web", "filtered") for way in ("surface", "variable_projection")
    ]
    for one in found["predictions"]:
        # The cases' law, 0.1 lower for the filtered one.
        law = (1.8 if one["variant"] == "web" else 1.7) + 480 * 7e9**-0.35 + 2100 * 4e12**-0.37
        assert one["loss"]["value"] == pytest.approx(law, abs=0.03)
        assert one["run"]["low"] < one["loss"]["value"] < one["run"]["high"]
        assert one["extrapolation"] > 30
    (compared,) = found["comparisons"]
    assert (compared["baseline"], compared["variant"]) == ("web", "filtered")


def test_text_says_how_far_out_it_is_and_only_where_it_is(call):
    shown = call(*COMMON, "--parameters", "7e9", "--tokens", "4e12")
    assert "Predicted loss of 7B parameters after 4T tokens" in shown
    words = " ".join(shown.split())
    assert "259 times beyond the runs" in words
    assert "On their surfaces, at 7e9 parameters and 4e12 tokens" in words
    near = call(*COMMON, "--parameters", "1e8", "--tokens", "2e9", "--equal-exponents")
    assert "beyond the runs" not in near
    assert "a loss difference of -0." in " ".join(near.split())


def test_a_budget_far_out_says_so(call, told):
    arguments = (*COMMON, "--where", "dataset=web", "--budget", "1e31")
    assert "10 orders of magnitude beyond the runs" in call(*arguments)
    found = told(*arguments)
    assert all(one["extrapolation"] > 1e9 for one in found["predictions"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "given is nothing to predict at; expected --budget alone"),
        (("--parameters", "7e9"), "given is --parameters; expected --budget alone"),
        (("--budget", "1e20", "--tokens", "1e9"), "given is --budget and --tokens; expected"),
        (("--parameters", "-1", "--tokens", "1e9"), "--parameters is -1; expected a positive"),
        (("--budget", "inf"), "--budget is inf; expected a positive"),
        (
            ("--parameters", "7e9", "--tokens", "1e9", "--register", "x.json"),
            "--register writes down an optimum; expected --budget",
        ),
    ],
)
def test_what_is_asked_for_must_be_one_thing(arguments, told: str, call):
    error = call(*COMMON, *arguments, code=2)
    assert told in error
    assert error.count("\n") == 1
