"""What the values check and derive by themselves."""

import pytest
from pydantic import ValidationError

from isoflop.config import (
    DataConfig,
    EveryToken,
    ModelConfig,
    Positions,
    RandomK,
    RunConfig,
    Scaling,
    Study,
    TopK,
    decisions,
)

MODEL = {"vocabulary": 256, "width": 48, "blocks": 5, "heads": 6, "head_width": 16, "hidden": 128}
STUDY = {"name": "s", "budgets_flops": [1e12], "variants": [{"name": "A"}, {"name": "B"}]}
SCALING = {"models": [{"blocks": 2, "width": 32}, {"blocks": 3, "width": 48}]}
SCALED = {
    "name": "s",
    "scaling": SCALING,
    "data": {"windows": "documents"},
    "variants": [{"name": "A"}],
}
WARMED = {"warmup_steps": 10}
RUN = {"model": MODEL, "steps": 5, "sequences_per_step": 2}
RATES = {"learning_rate": [5e-3, 1e-2, 2e-2]}
SEARCH = {"settings": RATES, "most_trials": 50}
GRID = {"learning_rates": [1e-3], "width_per_block": [8]}
MOVING = {"name": "A", "exponents": {"learning_rate": -0.1}}


def searching(**changes):
    return {**STUDY, "search": {**SEARCH, **changes}}


def routed(**changes):
    return {**MODEL, "depth": {"kind": "top_k", "capacity": 0.5, **changes}}


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (ModelConfig, {**MODEL, "head_width": 15}, "even number"),
        (ModelConfig, {**MODEL, "kv_heads": 4}, "does not divide heads = 6"),
        (ModelConfig, routed(blocks=[5]), "distinct indices from 0 to 4"),
        (ModelConfig, routed(blocks=[1, 1]), "distinct indices"),
        (ModelConfig, routed(every=6), "routes no block"),
        (ModelConfig, routed(blocks=[]), "routes no block"),
        (DataConfig, {"tokenizer": "bpe:256"}, "SIZE from 257"),
        (DataConfig, {"tokenizer": "bpe"}, "expected 'bytes' or 'bpe:SIZE'"),
        (Study, {**STUDY, "name": "a/b"}, "since it names a folder"),
        (Study, {**STUDY, "name": ".."}, "since it names a folder"),
        (Study, {**STUDY, "name": "a" * 65}, "1 to 64"),
        (Study, {**STUDY, "budgets_flops": [1e12, 1e12]}, "ascending, distinct"),
        (Study, {**STUDY, "budgets_flops": [0]}, "positive"),
        (Study, {**STUDY, "seeds": []}, "at least one"),
        (Study, {**STUDY, "seeds": [1, 1]}, "distinct"),
        (Study, {**STUDY, "seeds": [-1]}, "not negative"),
        (Study, {**STUDY, "data_orders": [0, 0]}, "distinct"),
        (Study, {**STUDY, "learning_rate_check": [0.5, 1.0]}, "without 1"),
        (Study, {**STUDY, "learning_rate_check": [0.5, 0.5]}, "distinct"),
        (Study, {**STUDY, "learning_rate_check": [1e-300]}, "from 1e-6 to 1e6"),
        (Study, {**STUDY, "learning_rate_check_seeds": 2}, "expected at most 1"),
        (Study, {**STUDY, "learning_rate_check_added": 1}, "no other rate is tried"),
        (Study, {**STUDY, "variants": [{"name": "A"}, {"name": "A"}]}, "distinct names"),
        (Study, {**STUDY, "baseline": "C"}, "expected one of"),
        (Study, {**STUDY, "budgets_flops": []}, r"are missing; expected .*\[\[scaling.models\]\]"),
        (Study, {**STUDY, "scaling": SCALING}, "are both there"),
        (Study, {**SCALED, "scaling": {**SCALING, "checked_model": 2}}, "expected at most 1"),
        (Study, {**SCALED, "grid": {"sizes": 5}}, "grid is given, but"),
        (Study, {**SCALED, "matched_shapes": False}, "matched_shapes is given, but"),
        (Study, {**STUDY, "positions": {}}, "expected 'documents'"),
        (RunConfig, {**RUN, "positions": {}}, "expected 'documents'"),
        (Study, {**SCALED, "positions": {"ranges": 7}}, "7 ranges and 128 trailing targets"),
        (Study, {**SCALED, "positions": {"trailing": 257}}, "expected a divisor and at most all"),
        (Study, {**STUDY, "challenger": "C"}, "expected one of"),
        (Study, searching(most_trials=None), "with most_trials missing"),
        (Study, searching(learning_rates=[1e-3]), "with a plain grid"),
        (Study, searching(settings=None), "most_trials has no settings beside it"),
        (Study, searching(settings={}), "no setting is given; expected one or more of learning"),
        (Study, searching(settings={"router_rate": [1, 2]}), "expected 3 or more positive, asc"),
        (Study, searching(settings={"router_rate": [1, 4, 2]}), "expected 3 or more positive, asc"),
        (Study, searching(budgets_flops=[2e12, 1e12]), "expected positive, ascending budgets"),
        (Study, searching(budgets_flops=[1e12], budget_flops=1e12), "expected one of them"),
        (Study, searching(seeds=[0, -1]), "distinct seeds from 0 to"),
        (
            Study,
            searching(settings={"warmup_fraction": [0.1, 0.5, 1]}),
            "ascending values below 1,",
        ),
        (Study, {**STUDY, "search": {"learning_rates": [1e-3]}}, "for a plain grid"),
        (Study, searching(learning_rates=[-1e-3]), r"rates is \[-0.001\]; expected distinct p"),
        (Study, searching(width_per_block=[0]), "expected distinct positive numbers up to 1e"),
        (Study, searching(learning_rates=[1e-3, 1e-3]), "expected distinct positive numbers"),
        (Study, {**STUDY, "search": {**GRID, "seeds": [0, 0]}}, "distinct seeds from 0 to"),
        (Study, {**SCALED, "variants": [MOVING]}, "count from the first of budgets_flops"),
        (
            Study,
            {**searching(settings={"warmup_fraction": [0.02, 0.05, 0.1]}), "recipe": WARMED},
            "recipe.warmup_steps is 10, beside which warmup_fraction",
        ),
    ],
)
def test_impossible_values_are_refused(kind, data, expected):
    with pytest.raises(ValidationError, match=expected):
        kind.model_validate(data)


def test_values_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        ModelConfig.model_validate(MODEL).width = 64


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [
        ({"kind": "every_token"}, ()),
        ({"kind": "top_k", "capacity": 0.5}, (1, 3)),
        ({"kind": "top_k", "capacity": 0.5, "every": 1}, (0, 1, 2, 3, 4)),
        ({"kind": "top_k", "capacity": 0.5, "every": 3}, (2,)),
        ({"kind": "random_k", "capacity": 0.5, "blocks": [4, 0]}, (0, 4)),
    ],
)
def test_routed_blocks(depth, blocks):
    assert ModelConfig.model_validate({**MODEL, "depth": depth}).routed_blocks == blocks


@pytest.mark.parametrize(
    ("capacity", "length", "selected"), [(0.125, 2048, 256), (0.5, 7, 3), (0.01, 7, 1), (1, 7, 7)]
)
def test_selected_tokens(capacity, length, selected):
    assert TopK(capacity=capacity).selected_tokens(length) == selected


def test_the_headline_decision_of_a_routed_model_is_causal():
    assert decisions(EveryToken()) == ("every_token",)
    assert decisions(TopK(capacity=0.5)) == ("predictor", "top_k", "threshold")
    assert decisions(TopK(capacity=0.5, router_bce=0.01))[-1] == "router"
    assert decisions(RandomK(capacity=0.5))[0] == "bernoulli"


def test_baseline_and_challenger_have_sensible_defaults():
    routed = {"name": "C", "depth": {"kind": "top_k", "capacity": 0.5}}
    control = {"name": "R", "depth": {"kind": "random_k", "capacity": 0.5}}
    study = Study.model_validate({**STUDY, "variants": [{"name": "A"}, control, routed]})
    assert study.baseline_variant.name == "A"
    assert study.challenger_variant.name == "C"
    assert Study.model_validate(STUDY).challenger_variant is None
    named = Study.model_validate({**STUDY, "baseline": "B", "challenger": "A"})
    assert named.baseline_variant.name == "B"
    assert named.challenger_variant.name == "A"


def test_data_counts_its_corpora_and_its_vocabulary():
    assert DataConfig(corpus=("a", "b")).corpora == ("a", "b")
    assert DataConfig().corpora == ("sotu",)
    assert DataConfig().vocabulary == 256
    assert DataConfig(tokenizer="bpe:0512").vocabulary == 512
    assert DataConfig(tokenizer="bpe:0512") == DataConfig(tokenizer="bpe:512")


def test_spans_are_the_ranges_then_the_whole_then_the_trailing_part():
    spans = Positions(ranges=3, trailing=4).spans(12)
    assert spans == ((0, 4), (4, 8), (8, 12), (0, 12))
    assert Positions(ranges=3, trailing=5).spans(12)[-1] == (7, 12)


def test_a_run_that_tells_no_positions_apart_has_no_spans():
    assert RunConfig.model_validate(RUN).spans == ()


@pytest.mark.parametrize(("models", "named", "checked"), [(5, None, 2), (2, None, 1), (5, 0, 0)])
def test_rates_are_checked_at_the_middle_model_unless_one_is_named(models, named, checked):
    sizes = [{"blocks": 2, "width": 32}] * models
    assert Scaling.model_validate({"models": sizes, "checked_model": named}).checked == checked
