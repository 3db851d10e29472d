"""Which learning rates and data orders are tried at the minima that a grid finds."""

from __future__ import annotations

import math

import pytest
from driven_grid import ONLY, drive, make_study, total, valley

from isoflop.planning import PlannedRun, bound, brackets
from isoflop.planning.assignment import assign


def test_rates_and_data_orders_are_checked_at_the_minimum_last() -> None:
    study = make_study(
        seeds=(0, 1), data_orders=(0, 1, 7), learning_rate_check=(0.5, 2.0), matched_shapes=False
    )
    runs, records = drive(study, valley(study))
    usual = study.recipe.learning_rate
    for name in ("Baseline", "MoD", "Random"):
        mine = [run for run in runs if run.variant == name]
        beside = [run for run in mine if run.purpose in ("rate", "order")]
        assert mine[-len(beside) :] == beside
        rates = [run for run in beside if run.purpose == "rate"]
        assert {run.config.recipe.learning_rate for run in rates} == {usual / 2, usual * 2}
        orders = {(run.config.seed, run.config.data_order) for run in beside if run not in rates}
        assert orders == {(0, 1), (0, 7), (1, 0), (1, 7)}
        best = next(b for b in brackets(study, records) if b.variant == name)
        assert {total(run.config) for run in beside} == {best.minimum_parameters}
    assert bound(study).checks == 3 * 6


def test_rates_are_checked_with_as_many_seeds_as_asked() -> None:
    study = make_study(seeds=(4, 5, 6), learning_rate_check=(0.5, 2.0), learning_rate_check_seeds=2)
    runs, _ = drive(study, valley(study))
    usual = study.recipe.learning_rate
    checked = [run for run in runs if run.purpose == "rate" and run.variant == "MoD"]
    assert {(run.config.seed, run.config.recipe.learning_rate) for run in checked} == {
        (seed, usual * multiplier) for seed in (4, 5) for multiplier in (0.5, 2.0)
    }
    assert len(checked) == 4
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
