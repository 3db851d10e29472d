"""Predictions recover a known law, and say how far they missed."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings, leave_largest_out, predict, run_table
from isoflop.fit.predictions import misses
from isoflop.fit.surfaces.surface import Surface

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)


def table(budgets: tuple[float, ...], noise: float = 0.0, seeds: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for budget in budgets:
        for size in 0.6 * np.sqrt(budget / 120) * 1.5 ** np.arange(-4, 5):
            tokens = budget / 6 / size
            loss = float(TRUE.loss(size, tokens))
            rows += [
                (seed, budget, size, tokens, loss + noise * rng.standard_normal())
                for seed in range(seeds)
            ]
    columns = ["seed", "budget_flops", "parameters", "tokens", "loss"]
    return run_table(pd.DataFrame(rows, columns=columns)).table


def optimum(budget: float) -> tuple[float, float]:
    sizes = np.geomspace(1e6, 1e12, 200_001)
    losses = TRUE.loss(sizes, budget / 6 / sizes)
    return float(sizes[losses.argmin()]), float(losses.min())


def test_without_noise_the_surface_predicts_the_optimum() -> None:
    size, loss = optimum(1e22)
    for one in predict(table((1e18, 1e19, 1e20)), 1e22):
        assert one.reason is None, one
        assert one.parameters is not None
        assert one.tokens is not None
        assert one.loss is not None
        # A parabola is biased in an asymmetric valley, which the surface is not.
        near = 0.15 if one.way == "minima" else 0.01
        assert one.parameters.value == pytest.approx(size, rel=near)
        assert one.loss.value == pytest.approx(loss, rel=near / 10)
        assert one.tokens.value == pytest.approx(1e22 / 6 / one.parameters.value, rel=1e-3)


def test_with_noise_the_intervals_hold_it() -> None:
    size, loss = optimum(1e21)
    for one in predict(
        table((1e18, 1e19, 1e20), noise=0.004), 1e21, settings=FitSettings(resamples=300)
    ):
        for found, truth in ((one.parameters, size), (one.loss, loss)):
            assert found is not None
            assert found.low is not None
            assert found.high is not None
            assert found.low < found.value < found.high
            assert found.low * 0.95 < truth < found.high * 1.05


def test_leaving_the_largest_budget_out_shows_the_miss() -> None:
    found = leave_largest_out(
        table((1e18, 1e19, 1e20), noise=0.001), settings=FitSettings(resamples=50)
    )
    assert {one.prediction.way for one in found} == {"minima", "surface", "variable_projection"}
    for one in found:
        assert one.prediction.budget_flops == 1e20
        assert one.loss_error is not None
        assert abs(one.loss_error) < 0.02
        assert one.parameter_ratio is not None
        assert 0.5 < one.parameter_ratio < 2


def test_a_budget_not_trained_has_no_miss() -> None:
    runs = table((1e18, 1e19))
    assert misses(runs, predict(runs, 1e21, settings=FitSettings(resamples=20))) == ()


def test_one_budget_has_no_law_and_says_so() -> None:
    for one in predict(table((1e18,)), 1e20, settings=FitSettings(resamples=20)):
        assert one.parameters is None
        assert one.reason is not None
        assert "one budget" in one.reason or "needs two" in one.reason


@pytest.mark.parametrize("budget", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_must_be_positive(budget: float) -> None:
    with pytest.raises(ValueError, match="budget is"):
        predict(table((1e18, 1e19)), budget)
