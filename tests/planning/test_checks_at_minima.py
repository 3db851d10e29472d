"""Which learning rates and data orders are tried at the minima that a grid finds."""

from __future__ import annotations

import math

import pytest
from driven_grid import ONLY, drive, make_study, valley

from isoflop.planning import PlannedRun, bound
from isoflop.planning.assignment import assign


def test_every_seed_has_the_orders_of_the_others_that_are_named() -> None:
    study = make_study(seeds=(0, 1), data_orders=(0, 1, 7), matched_shapes=False)
    runs, _ = drive(study, valley(study))
    beside = [run for run in runs if run.purpose == "order" and run.variant == "MoD"]
    orders = {(run.config.seed, run.config.data_order) for run in beside}
    assert orders == {(0, 1), (0, 7), (1, 0), (1, 7)}
    assert bound(study).checks == 3 * 4


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1.0, {0.625, 1.6}),
        (1.6, {0.625, 1.6, 2.56}),
        (2.56, {0.625, 1.6, 2.56, 4.096}),
        (9.0, {0.625, 1.6, 2.56, 4.096}),
        (0.625, {0.625, 1.6, 0.390625}),
        (0.01, {0.625, 1.6, 0.390625, 0.244141}),
    ],
)
def test_rates_are_added_until_the_best_is_between_two(best: float, tried: set[float]) -> None:
    study = make_study(
        seeds=(0, 1),
        learning_rate_check=(0.625, 1.6),
        learning_rate_check_seeds=2,
        learning_rate_check_added=2,
        matched_shapes=False,
    )
    usual, sizes = study.recipe.learning_rate, valley(study)

    def loss(run: PlannedRun) -> float:
        found = sizes(run)
        return found + 0.05 * math.log(run.config.recipe.learning_rate / usual / best) ** 2

    runs, records = drive(study, loss, at_a_time=5)
    checks = [run for run in runs if run.purpose == "rate"]
    assert {
        (run.variant, round(run.config.recipe.learning_rate / usual, 6), run.config.seed)
        for run in checks
    } == {
        (name, one, seed)
        for name in ("Baseline", "MoD", "Random")
        for one in tried
        for seed in (0, 1)
    }
    assert bound(study).checks == 3 * 2 * 4
    found = assign(study, records)
    assert found.foreign == ()
    assert set(found.checks) == {run.config.run_id for run in checks}


def test_a_rate_that_diverges_is_an_end() -> None:
    study = make_study(learning_rate_check=(0.5,), learning_rate_check_added=3, variants=ONLY)
    usual, sizes = study.recipe.learning_rate, valley(study)

    def loss(run: PlannedRun) -> float | None:
        rate, found = run.config.recipe.learning_rate, sizes(run)
        return found - rate if rate <= usual else None

    runs, _ = drive(study, loss)
    rates = {run.config.recipe.learning_rate / usual for run in runs if run.purpose == "rate"}
    assert rates == {0.5, 2.0}


def test_rates_are_added_within_reach_alone() -> None:
    study = make_study(learning_rate_check=(1e-4,), learning_rate_check_added=100, variants=ONLY)
    usual, sizes = study.recipe.learning_rate, valley(study)
    runs, _ = drive(study, lambda run: sizes(run) + run.config.recipe.learning_rate / usual)
    rates = {run.config.recipe.learning_rate / usual for run in runs if run.purpose == "rate"}
    assert sorted(rates) == pytest.approx([1e-8, 1e-4])
