"""A scaling study: every variant at every named size, for as many tokens."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from driven_grid import make_study

from given import record_of
from isoflop.config import (
    BlockAttention,
    DataConfig,
    Positions,
    ScaledModel,
    Scaling,
    Study,
    TopK,
    Variant,
)
from isoflop.costs import parameters, train_flops_per_token
from isoflop.planning import bound, brackets, next_runs
from isoflop.planning.assignment import assign

MODELS = (
    ScaledModel(blocks=2, width=40),
    ScaledModel(blocks=3, width=56, tokens=5e6),
    ScaledModel(blocks=4, width=96),
)


@pytest.fixture
def scaled() -> Study:
    study: Study = make_study(
        budgets_flops=(),
        scaling=Scaling(models=MODELS, tokens_per_parameter=30),
        seeds=(3, 5),
        learning_rate_check=(0.5, 2.0),
        data=DataConfig(sequence_length=512, windows="documents"),
        positions=Positions(ranges=4, trailing=32),
        variants=(
            Variant(name="Full"),
            Variant(name="Block", attention=BlockAttention(block_size=64)),
            Variant(name="Convolved", attention=BlockAttention(block_size=64, key_convolution=3)),
        ),
    )
    return study


def test_rates_are_added_at_the_checked_size(scaled: Study) -> None:
    study = scaled.model_copy(update={"learning_rate_check_added": 1})
    assert bound(study).checks == 3
    assert bound(study).flops == pytest.approx(
        3 * max(run.budget_flops for run in next_runs(scaled, []) if run.purpose == "rate")
    )
    runs, records = [], []
    while found := next_runs(study, records):
        runs += found
        records += [record_of(run.config, 1 - run.config.recipe.learning_rate) for run in found]
    rates = [run.config.recipe.learning_rate for run in runs if run.purpose == "rate"]
    assert Counter(rates) == {4e-3: 3, 1.6e-2: 3, 3.2e-2: 3}
    assert assign(study, records).foreign == ()


def test_every_variant_gets_every_size_and_seed_and_the_middle_size_its_checks(
    scaled: Study,
) -> None:
    runs = next_runs(scaled, [])
    assert Counter(run.purpose for run in runs) == {"initial": 9, "rate": 6, "replicate": 9}
    rates = [run for run in runs if run.purpose == "rate"]
    assert {run.config.model.width for run in rates} == {56}
    assert {run.config.recipe.learning_rate for run in rates} == {4e-3, 1.6e-2}
    others = [run for run in runs if run not in rates]
    shapes = {(run.variant, run.config.model.width, run.config.seed) for run in others}
    assert shapes == set(product(("Full", "Block", "Convolved"), (40, 56, 96), (3, 5)))
    for width, named in ((40, None), (56, 5e6), (96, None)):
        of_all = [run for run in runs if run.config.model.width == width]
        # A key convolution's parameters move neither tokens nor compute.
        counted = {(run.budget_flops, run.config.steps, run.config.tokens) for run in of_all}
        ((budget, steps, tokens),) = counted
        full = of_all[0].config
        wanted = named or 30 * parameters(full.model).non_embedding
        assert tokens == pytest.approx(wanted, abs=tokens / steps / 2)
        flops = tokens * train_flops_per_token(full.model, 512, "6nd")
        assert budget == pytest.approx(flops, rel=1 / steps)


def test_what_has_a_record_is_not_asked_for_and_known_as_its_variant_s(scaled: Study) -> None:
    runs = next_runs(scaled, [])
    records = [record_of(run.config, 2.0) for run in runs]
    partly = [*records[:4], record_of(runs[4].config, None, "diverged")]
    assert next_runs(scaled, partly) == runs[5:]
    assert next_runs(scaled, records) == []
    assert bound(scaled).runs == 0
    assert brackets(scaled, records) == []
    foreign = record_of(runs[0].config.model_copy(update={"seed": 99}), 2.0)
    found = assign(scaled, [*records, foreign])
    assert (found.foreign, found.off_ladder) == ((foreign.run_id,), frozenset())
    assert found.checks == {r.config.run_id: r.variant for r in runs if r.purpose == "rate"}
    assert found.all == {run.config.run_id: run.variant for run in runs}


def test_too_few_tokens_for_a_step_are_refused(scaled: Study) -> None:
    study = scaled.model_copy(update={"tokens_per_step": 512 * 40_000})
    with pytest.raises(ValueError, match=r"2 blocks of width 40 get .* less than half of a step"):
        next_runs(study, [])


def test_a_routing_that_a_named_size_cannot_have_is_refused(scaled: Study) -> None:
    routed = Variant(name="MoD", depth=TopK(capacity=0.5, every=4))
    study = scaled.model_copy(update={"variants": (*scaled.variants, routed)})
    with pytest.raises(ValueError, match="routes no block"):
        next_runs(study, [])
