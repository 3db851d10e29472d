"""`isoflop fit` on a study, its records, and tables of other people."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isoflop.config import RunConfig
from isoflop.fit.predictions import WAYS


@pytest.fixture
def table(tmp_path):
    """A table of two variants at three budgets, with seeds, from a known surface."""
    rng = np.random.default_rng(0)
    rows = []
    for name, floor in (("plain", 1.7), ("routed \x1b[31m", 1.65)):
        for budget in (1e18, 1e19, 1e20):
            for size in np.sqrt(budget / 120) * 1.6 ** np.arange(-3, 4):
                tokens = budget / 6 / size
                loss = floor + 400 * size**-0.34 + 1500 * tokens**-0.37
                for seed in range(3):
                    noisy = loss + 0.002 * rng.standard_normal()
                    rows.append((name, seed, budget, size, noisy))
    columns = ["variant", "seed", "Training FLOP", "Model Size", "final"]
    path = tmp_path / "table.csv"
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)
    return path


def test_a_study_and_its_records_are_fitted(study_file, committed, call, told):
    found = told("fit", study_file)
    assert found["baseline"] == "Baseline"
    assert found["loss_unit"] == "nats per byte"
    exported = study_file.parent / "results" / "small" / "records.jsonl"
    found = told("fit", exported)
    assert set(found["variants"]) == {"every_token", "top_k 0.5 every 2"}
    assert "nats per byte" in call("fit", study_file, "--details")
    assert "Intervals are 99.9%;" in call("fit", study_file, "--details", "--level", "0.999")
    shown = call("fit", study_file)
    assert shown.startswith("5 runs of 2 variants at one budget, 1.5e11 FLOPs.\n")
    assert r"MoD [bold]\x1b[31m cannot be compared with Baseline" in " ".join(shown.split())
    assert "Akima" not in shown


def test_records_of_other_attention_are_another_variant(study_file, committed, told):
    exported = study_file.parent / "results" / "small" / "records.jsonl"
    rows = [json.loads(line) for line in exported.read_text().splitlines()]
    for row in rows:
        if row["config"]["model"]["depth"]["kind"] == "top_k":
            row["config"]["model"]["depth"] = {"kind": "every_token"}
            row["config"]["model"]["attention"] = {"kind": "block", "block_size": 8, "top_k": 2}
            row["evaluations"] = [one | {"decision": "every_token"} for one in row["evaluations"]]
            row["run_id"] = RunConfig.model_validate(row["config"]).run_id
    exported.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = told("fit", exported)
    assert set(found["variants"]) == {"every_token", "every_token, 2 blocks of 8 attended"}


def test_clusters_are_a_column_of_the_table_or_of_the_records(table, study_file, committed, call):
    arguments = ("fit", table, "--columns", "loss=final", "--resamples", "20", "--json")
    found = json.loads(call(*arguments, "--cluster", "Training FLOP"))
    assert found["variants"]["plain"]["surface"]["source"] == "clusters"
    assert "has no column 'lab'" in call(*arguments, "--cluster", "lab", code=2)
    told = call("fit", study_file, "--cluster", "lab", code=2)
    assert "--cluster is 'lab'" in told
    call("fit", study_file, "--cluster", "seed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("none.csv",), "does not exist"),
        (("table.csv",), "expected loss and two of"),
        (("table.csv", "--columns", "loss"), "expected NAME=COLUMN"),
        (("table.csv", "--columns", "loss=nothing"), "has no column 'nothing'"),
        (("table.csv", "--columns", "loss=final", "--baseline", "x"), "baseline is 'x'"),
        (("table.csv", "--columns", "loss=final", "--level", "2"), "level is 2"),
        (("table.csv", "--columns", "loss=final", "--tolerance", "3"), "tolerance is 3"),
    ],
)
def test_bad_arguments_are_one_line(table, monkeypatch, arguments, message, call):
    monkeypatch.chdir(table.parent)
    told = call("fit", *arguments, code=2)
    assert message in told
    assert told.count("\n") == 1


def test_predict_shows_the_optimum_and_tests_itself(table, tmp_path, monkeypatch, call, told):
    of_one = ("--columns", "loss=final", "--where", "variant=plain", "--resamples", "20")
    arguments = ("predict", table, *of_one, "--budget", "1e21")
    shown = call(*arguments, "--level", "0.999")
    assert "Predicted optimum at 1e21 FLOPs, 99.9% intervals" in shown
    assert "1e20 FLOPs predicted from the smaller budgets" in shown
    where = tmp_path / "registered.json"
    found = told(*arguments, "--register", where)
    assert {one["way"] for one in found["predictions"]} == set(WAYS)
    assert len(found["leave_largest_out"]) == 3
    assert len(json.loads(where.read_text())["sha256"]) == 64
    told = call(*arguments, "--register", where, code=2)
    assert "is not replaced" in told


def test_rows_and_arithmetic_are_options_of_the_command(table, call):
    options = ("--columns", "loss = final * 1", 'parameters="Model Size"', "--resamples", "20")
    said = call("fit", table, *options, "--where", "variant=plain", "seed<2", "--json")
    assert list(json.loads(said)["variants"]) == ["plain"]
    for option in ("--best-of", "--last-of"):
        said = call("fit", table, *options, option, "color", code=2)
        assert f"has no column 'color' for {option}" in said


CASE = Path(__file__).parents[1] / "cases" / "token-multiplier-grid.csv"
AT_A_POINT = ("predict", CASE, "--columns", "variant=dataset", "--resamples", "20")


def test_json_has_the_loss_of_every_variant_and_how_they_compare(told):
    at = ("--parameters", "7e9", "--tokens", "4e12")
    found = told(*AT_A_POINT, *at)
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
    shown = call(*AT_A_POINT, "--parameters", "7e9", "--tokens", "4e12")
    assert "Predicted loss of 7B parameters after 4T tokens" in shown
    words = " ".join(shown.split())
    assert "259 times beyond the runs" in words
    assert "On their surfaces, at 7e9 parameters and 4e12 tokens" in words
    near = call(*AT_A_POINT, "--parameters", "1e8", "--tokens", "2e9", "--equal-exponents")
    assert "beyond the runs" not in near
    assert "a loss difference of -0." in " ".join(near.split())


def test_a_budget_far_out_says_so(call, told):
    arguments = (*AT_A_POINT, "--where", "dataset=web", "--budget", "1e31")
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
    error = call(*AT_A_POINT, *arguments, code=2)
    assert told in error
    assert error.count("\n") == 1
