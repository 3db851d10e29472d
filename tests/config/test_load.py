"""Reading study and run files: what is right is read exactly, what is wrong is told in one line."""

import json

import pytest

from isoflop.config import RunConfig, Study
from isoflop.config.load import load, load_study, validated

STUDY = {
    "name": "small",
    "budgets_flops": [5e12],
    "variants": [
        {"name": "Baseline"},
        {"name": "MoD", "depth": {"kind": "top_k", "capacity": 0.125}},
    ],
}
RUN = {
    "model": {
        "vocabulary": 256,
        "width": 48,
        "blocks": 3,
        "heads": 3,
        "head_width": 16,
        "hidden": 128,
    },
    "steps": 7,
    "sequences_per_step": 5,
}


def problem(kind=Study, **changes):
    base = STUDY if kind is Study else RUN
    with pytest.raises(ValueError) as caught:
        validated(kind, {**base, **changes}, "a.toml")
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("a.toml: ")
    return text.removeprefix("a.toml: ")


def depth(**table):
    return [{"name": "Baseline"}, {"name": "MoD", "depth": table}]


def test_a_model_table_makes_it_a_run(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RUN))
    config = load(path)
    assert isinstance(config, RunConfig)
    assert config.model.width == 48
    with pytest.raises(ValueError, match="describes a single run; expected a study"):
        load_study(path)


def test_a_recipe_may_come_from_several_corpora():
    source = {"corpus": ["a.txt", "b.txt"], "tokenizer": "bytes", "sequence_length": 256}
    study = validated(Study, {**STUDY, "recipe": {"source": source}}, "study.toml")
    assert study.recipe.source.corpus == ("a.txt", "b.txt")
    assert Study.model_validate_json(study.model_dump_json(), strict=True) == study


def test_floats_without_fraction_count_as_whole_numbers():
    study = validated(Study, {**STUDY, "tokens_per_step": 2e3}, "a.toml")
    assert study.tokens_per_step == 2000
    assert problem(tokens_per_step=2000.5).startswith("tokens_per_step is 2000.5; expected a whole")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"variants": depth(kind="top_k", capacity=1.5)},
            "variants[1].depth.capacity is 1.5; expected a number in (0, 1]",
        ),
        (
            {"variants": depth(kind="top_k", capacity=True)},
            "variants[1].depth.capacity is true; expected a number in (0, 1]",
        ),
        (
            {"variants": depth(kind="topk", capacity=0.5)},
            "variants[1].depth.kind is 'topk'; did you mean 'top_k'?",
        ),
        (
            {"variants": depth(capacity=0.5)},
            "variants[1].depth has no `kind`; expected one of 'every_token', 'top_k', 'random_k'",
        ),
        (
            {"variants": depth(kind="top_k")},
            "variants[1].depth.capacity is missing; expected a number in (0, 1]",
        ),
        (
            {"variants": depth(kind="top_k", capacity=0.5, gate="quadratic")},
            "variants[1].depth.gate is 'quadratic'; expected one of 'linear', 'sigmoid', 'tanh'",
        ),
        ({"budgets_flops": 5e12}, "budgets_flops is 5000000000000; expected a list of numbers"),
        ({"budgets_flops": [float("nan")]}, "budgets_flops[0] is nan; expected a number"),
        ({"budgets_flops": [2e12, 1e12]}, "budgets_flops is [2000000000000.0, 1000000000000.0]; e"),
        ({"variants": []}, "variants is []; expected a list of tables, at least 1"),
        ({"data": {"corpus": ["a", 3]}}, "data.corpus[1] is 3; expected text"),
        ({"data": {"corpus": 3}}, "data.corpus is 3; expected text or a list of text"),
        ({"data": 3}, "data is 3; expected a table"),
        ({"data": {"tokenizer": "bpe:9"}}, "data.tokenizer is 'bpe:9'; expected 'bytes' or"),
        ({"data": {"tokenizer": f"{'x' * 5000}.json"}}, "data.tokenizer is 'xxx"),
        ({"data": {"ids_tokenizer": f"{'x' * 5000}.json"}}, "data.ids_tokenizer: tokenizer is 'xx"),
        ({"data": {"test_fraction": 0.5}}, "data.test_fraction is 0.5; expected a number in (0, 0"),
        ({"convention": "casual"}, "convention is 'casual'; did you mean 'causal'?"),
        ({"baseline": "MoE"}, "baseline is 'MoE'; expected one of ['Baseline', 'MoD']"),
        ({"name": "../x"}, "name is '../x'; expected 1 to 64 letters"),
        ({"grid": {"sizes": 0}}, "grid.sizes is 0; expected a whole number from 1 to 100"),
        ({"grid": {"factor": 1}}, "grid.factor is 1; expected a number from 1.01 to 1,000"),
    ],
)
def test_a_wrong_study_is_told_by_key_path(changes, expected):
    assert problem(**changes).startswith(expected)


def test_a_wrong_run_is_told_by_key_path():
    model = {**RUN["model"], "head_width": 15}
    assert problem(RunConfig, model=model).startswith("model: head_width is 15; rotary positions")
    assert problem(RunConfig, steps=0) == "steps is 0; expected a whole number from 1 to 1e+12"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"budget_flops": [1e12]}, "unknown key budget_flops; did you mean 'budgets_flops'?"),
        (
            {"variants": depth(kind="top_k", capacity=0.5, capactiy=0.5)},
            "unknown key variants[1].depth.capactiy; did you mean 'capacity'?",
        ),
        ({"data": {"corpos": "sotu"}}, "unknown key data.corpos; did you mean 'corpus'?"),
        ({"data": {"zzz": 1}}, "unknown key data.zzz; expected one of 'corpus', 'tokenizer', 's"),
    ],
)
def test_an_unknown_key_names_the_nearest_one(changes, expected):
    assert problem(**changes).startswith(expected)


def test_a_misspelt_key_comes_before_what_it_leaves_missing():
    text = problem(variants=depth(kind="top_k", capacty=0.5))
    assert text == (
        "unknown key variants[1].depth.capacty; did you mean 'capacity'? (and 1 more problem)"
    )


def test_further_problems_are_counted():
    text = problem(seeds="0", convention=3, data={"corpus": 1})
    assert text.endswith("(and 2 more problems)")


def test_control_characters_and_long_values_stay_inert():
    assert "\x1b" not in problem(**{"a\x1b[31m": 1})
    assert "\x1b" not in problem(name="\x1b[31mred")
    assert len(problem(convention="x" * 5000)) < 200


@pytest.mark.parametrize("name", ["missing.toml", "nul\0.toml", "x" * 300 + ".toml", "."])
def test_a_path_that_is_no_file_is_told_in_one_line(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no such file|folder|cannot be read") as caught:
        load(name)
    assert str(caught.value).isprintable()


def test_a_checkpoint_of_a_name_too_long_is_told_by_its_key(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(STUDY | {"start": {"checkpoint": "x" * 5000}}))
    with pytest.raises(ValueError, match=r"s\.json: start\.checkpoint is 'xxx"):
        load(path)


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "s.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(STUDY).encode())
    assert isinstance(load(path), Study)
