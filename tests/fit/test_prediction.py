"""Predictions recover a known law, and say how far they missed or are beyond the runs."""

import math

import numpy as np
import pandas as pd
import pytest
from known_surfaces import TRUE, crossed, noisy, table_of

from isoflop.fit import FitSettings, fit_runs, leave_largest_out, predict, predict_point
from isoflop.fit.predictions import misses
from isoflop.fit.words import distance_words

FEW = FitSettings(resamples=20)


def curves(budgets: tuple[float, ...], noise: float = 0.0) -> pd.DataFrame:
    """Return three seeds of nine sizes at each budget."""
    c = np.repeat(budgets, 27)
    n = 0.6 * np.sqrt(c / 120) * np.tile(np.repeat(1.5 ** np.arange(-4, 5), 3), len(budgets))
    columns = noisy(TRUE, n, c / 6 / n, noise)
    return table_of(columns, budget_flops=c, seed=np.arange(len(c)) % 3)


def grid(noise: float = 0.0, seed: int = 0, slope: float = 1.0) -> pd.DataFrame:
    """Return 8 sizes at 6 numbers of tokens; training FLOPs are 6 D N^slope."""
    n, d, losses = crossed(noise=noise, seed=seed)
    return table_of((n, d, losses), budget_flops=6 * d * n**slope)


def optimum(budget: float, slope: float = 1.0) -> tuple[float, float]:
    """Return the size that minimises A N^-alpha + B (6 N^slope / C)^beta, and its loss."""
    sizes = np.geomspace(1e6, 1e12, 400_001)
    losses = TRUE.loss(sizes, budget / 6 / sizes**slope)
    return float(sizes[losses.argmin()]), float(losses.min())


def test_without_noise_the_surface_predicts_the_optimum() -> None:
    size, loss = optimum(1e22)
    for one in predict(curves((1e18, 1e19, 1e20)), 1e22):
        assert one.reason is None, one
        # A parabola is biased in an asymmetric valley, which the surface is not.
        near = 0.15 if one.way == "minima" else 0.01
        assert one.parameters.value == pytest.approx(size, rel=near)
        assert one.loss.value == pytest.approx(loss, rel=near / 10)
        assert one.tokens.value == pytest.approx(1e22 / 6 / one.parameters.value, rel=1e-3)


def test_with_noise_the_intervals_hold_it() -> None:
    size, loss = optimum(1e21)
    runs = curves((1e18, 1e19, 1e20), noise=0.002)
    for one in predict(runs, 1e21, settings=FitSettings(resamples=300)):
        for found, truth in ((one.parameters, size), (one.loss, loss)):
            assert found.low < found.value < found.high
            assert found.low * 0.95 < truth < found.high * 1.05


def test_leaving_the_largest_budget_out_shows_the_miss() -> None:
    found = leave_largest_out(curves((1e18, 1e19, 1e20), noise=0.0005), settings=FEW)
    assert {one.prediction.way for one in found} == {"minima", "surface", "variable_projection"}
    for one in found:
        assert one.prediction.budget_flops == 1e20
        assert abs(one.loss_error) < 0.02
        assert 0.5 < one.parameter_ratio < 2
    runs = curves((1e18, 1e19))
    far = predict(runs, 1e21, settings=FEW)
    assert misses(runs, far) == (), "a budget that was not trained has no miss"
    assert [one.extrapolation for one in far] == pytest.approx([100] * 3)


def test_what_is_measured_is_the_minimum_of_the_fit() -> None:
    """Runs of nearly a budget's compute are moved to it for both."""
    runs = curves((1e18, 1e19, 1e20), noise=0.0005)
    own = runs["budget_flops"] * np.random.default_rng(0).uniform(0.93, 1.07, len(runs))
    moved = runs.assign(training_flops=own, tokens=runs["tokens"] * own / runs["budget_flops"])
    moved["loss"] = noisy(TRUE, moved["parameters"], moved["tokens"], 0.0005)[2]
    (at,) = (
        one
        for one in fit_runs(moved, FEW).minima
        if (one.estimator, one.budget_flops) == ("parabola", 1e20)
    )
    for one in leave_largest_out(moved, settings=FEW):
        assert (one.parameters, one.loss) == pytest.approx((at.parameters, at.loss), rel=1e-9)


def test_one_budget_or_number_of_tokens_has_no_law_and_says_so() -> None:
    for one in predict(curves((1e18,)), 1e20, settings=FEW):
        assert one.parameters is None
        assert "one budget" in one.reason or "needs two" in one.reason
    runs = grid()
    for one in predict_point(runs[runs["tokens"] == runs["tokens"].iloc[0]], 1e9, 1e10):
        assert (one.loss, one.run) == (None, None)
        assert one.reason


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_numbers_must_be_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="budget is"):
        predict(grid(), bad)
    with pytest.raises(ValueError, match="parameters is"):
        predict_point(grid(), bad, 1e9)
    with pytest.raises(ValueError, match="tokens is"):
        predict_point(grid(), 1e9, bad)
    with pytest.raises(ValueError, match="resamples is 3; expected at least 20"):
        FitSettings(resamples=3)


@pytest.mark.slow
def test_intervals_hold_the_law_and_a_new_run_as_often_as_they_say() -> None:
    held_law, held_run, studies = 0, 0, 40
    generator = np.random.default_rng(9)
    n, d = 3e9, 2e11
    for study in range(studies):
        runs = grid(0.01, seed=study)
        found = predict_point(runs, n, d, settings=FitSettings(resamples=200, seed=study))[1]
        truth = float(TRUE.loss(n, d))
        held_law += found.loss.low <= truth <= found.loss.high
        new = truth * math.exp(0.01 * generator.standard_normal())
        held_run += found.run.low <= new <= found.run.high
        assert found.run.high - found.run.low > found.loss.high - found.loss.low
    # Nominal 95% of 40: below 33 is one in four thousand.
    assert held_law >= 33
    assert held_run >= 33


@pytest.mark.parametrize(
    ("n", "d", "factor"),
    [(3e8, 7e9, 1.0), (2e9, 1e11, 2.0), (8e9, 5e10, 4.0), (1e7, 1e9, 2.0), (7e10, 4e12, 35 * 80)],
)
def test_of_an_exact_law_a_loss_is_the_laws_and_its_distance_is_told(n, d, factor) -> None:
    for one in predict_point(grid(), n, d, settings=FEW):
        assert one.reason is None
        assert one.loss.value == one.run.value == pytest.approx(float(TRUE.loss(n, d)), rel=1e-6)
        assert one.training_flops == pytest.approx(6 * n * d, rel=1e-6)
        assert one.extrapolation == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (None, None),
        (30.0, None),
        (31.0, "31 times beyond the runs"),
        (2500.0, "2,500 times beyond the runs"),
        (1e10, "10 orders of magnitude beyond the runs"),
    ],
)
def test_beyond_thirty_times_it_is_said(factor, words) -> None:
    told = distance_words(factor)
    assert told is None if words is None else told.startswith(words)


def test_optima_follow_the_law_of_the_flops_that_the_table_counts() -> None:
    best, loss = optimum(1e20, slope=0.8)
    for one in predict(grid(slope=0.8), 1e20, settings=FEW):
        if one.way != "minima":
            assert one.parameters.value == pytest.approx(best, rel=1e-4)
            assert one.loss.value == pytest.approx(loss, rel=1e-6)
            assert one.tokens.value == pytest.approx(1e20 / 6 / best**0.8, rel=1e-4)
