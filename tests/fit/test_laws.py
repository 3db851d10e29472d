"""Power laws through points, minima and training curves: their intervals, or why there are none."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy
from known_surfaces import TRUE, noisy, table_of

from isoflop.fit import FitSettings, fit_runs
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.curves.systematic import SURE, Systematic
from isoflop.fit.laws.envelope import SMOOTHING, fit_envelope, smoothed_curve
from isoflop.fit.laws.optima import FittedLaw, drawn_slopes, fit_power_law, minimum_law

BUDGETS = [1e18 * 3.0**i for i in range(12)]
POINTS = {c: 0.1 * c**0.5 for c in BUDGETS}


def draws(budgets: list[float]) -> dict[float, np.ndarray]:
    rng = np.random.default_rng(0)
    return {c: np.log(0.1 * c**0.5) + 0.1 * rng.standard_normal(4000) for c in budgets}


def law_through(copies: dict[float, np.ndarray], biases: dict[float, Systematic]) -> FittedLaw:
    """Return the law through minima at each budget, of which some have noisy copies."""
    found = [
        CurveMinimum.model_construct(
            estimator="parabola", variant="v", budget_flops=c, parameters=n, interval=copies.get(c)
        )
        for c, n in POINTS.items()
    ]
    draws = SimpleNamespace(
        settings=FitSettings(), minima=lambda v, c, e: (copies[c], None) if c in copies else None
    )
    return minimum_law(found, draws, biases)


@pytest.mark.parametrize("without", [0, 1, 6])
def test_budgets_without_noise_leave_the_interval_to_the_others(without: int) -> None:
    law = law_through(draws(BUDGETS[without:]), {})
    assert law.a.value == pytest.approx(0.5)
    x = np.log(BUDGETS[without:])
    half = 1.96 * 0.1 / np.sqrt(np.sum((x - x.mean()) ** 2))
    assert law.a.low == pytest.approx(0.5 - half, abs=0.1 * half)
    assert law.a.high == pytest.approx(0.5 + half, abs=0.1 * half)
    assert (law.interval_note is None) == (without == 0)
    if without:
        assert f"leaves out {without} of 12 budgets" in law.interval_note


def test_a_law_without_an_interval_says_why() -> None:
    alone = law_through(draws(BUDGETS[:1]), {})
    assert (alone.a.low, alone.a.high) == (None, None)
    assert "no interval: nothing tells" in alone.interval_note
    refused = {c: np.full(4000, np.nan) for c in BUDGETS}
    none = law_through(refused, {})
    assert none.a.low is None
    assert "hardly any noisy copy" in none.interval_note


def test_a_bias_that_grows_with_the_budget_is_a_bias_of_the_exponent() -> None:
    x = np.log(BUDGETS)
    biased = {c: Systematic(np.zeros(1), np.array([0.02 * np.log(c)])) for c in BUDGETS}
    law = law_through({}, biased)
    assert law.systematic == pytest.approx(SURE * 0.02)
    assert law.a.low == pytest.approx(0.5 - SURE * 0.02)
    assert "no noise in the interval" in law.interval_note
    # A bias that is the same everywhere is none of the exponent.
    constant = {c: Systematic(np.zeros(1), np.array([0.3])) for c in BUDGETS}
    assert law_through({}, constant).systematic < 1e-9
    # By surfaces that differ between budgets, signs do not cancel.
    mixed = {**constant, BUDGETS[0]: Systematic(np.zeros(2), np.array([0.3, -0.3]))}
    weights = np.abs(x - x.mean()) / np.sum((x - x.mean()) ** 2)
    told = law_through({}, mixed).systematic
    assert told == pytest.approx(SURE * 0.3 * weights.sum())


def test_a_copy_without_a_minimum_at_one_budget_has_the_slope_of_the_others() -> None:
    sizes = np.array([[1.0, 2.0, 4.0], [1.0, np.nan, 3.0], [np.nan, np.nan, 3.0]])
    found = drawn_slopes(np.exp([0.0, 1.0, 2.0]).tolist(), list(sizes.T))
    assert found[:2].tolist() == pytest.approx([1.5, 1.0])
    assert np.isnan(found[2])


def test_intervals_are_those_of_a_regression_in_log_space() -> None:
    x = np.array([0.4, 0.7, 1.4, 2.5, 5.1])
    y = 2.6 * x**-0.08 * np.exp([0.004, -0.003, 0.001, -0.004, 0.002])
    law = fit_power_law(x, y, level=0.9)
    peer = scipy.stats.linregress(np.log(x), np.log(y))
    t = scipy.stats.t.ppf(0.95, 3) * np.array([-1, 1])
    assert law.a.value == pytest.approx(peer.slope)
    assert law.a.ends == pytest.approx(tuple(peer.slope + t * peer.stderr))
    assert law.k.ends == pytest.approx(tuple(np.exp(peer.intercept + t * peer.intercept_stderr)))
    two = fit_power_law([1.0, 4.0], [3.0, 6.0])
    assert (two.k.value, two.a.value) == (pytest.approx(3.0), pytest.approx(0.5))
    assert (two.k.low, two.a.low, two.log_residual) == (None, None, None)
    assert "nothing to check" in two.message
    for points in ([], [5e12], [5e12, 5e12]):
        assert fit_power_law(points, [1e5] * len(points)).status == "too_few"


def curved(
    factors: np.ndarray, noise: float = 0.0, seeds: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs at `factors` times about the best size of each budget, and their curves."""
    c, factor, seed = (
        one.ravel()
        for one in np.meshgrid([1e18, 1e19, 1e20], factors, np.arange(seeds), indexing="ij")
    )
    n = 0.6 * np.sqrt(c / 120) * factor
    table = table_of(noisy(TRUE, n, c / 6 / n, 0.0), budget_flops=c, seed=seed)
    shares = np.arange(1, 61) / 60
    points = table[["run_id", "parameters", "tokens"]].merge(
        pd.Series(shares, name="share"), "cross"
    )
    points["tokens"] *= points["share"]
    draws = np.random.default_rng(0).standard_normal(len(points))
    losses = TRUE.loss(points["parameters"], points["tokens"]) + noise * draws
    return table, points.assign(loss=losses)[["run_id", "tokens", "loss"]]


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_an_envelope_recovers_the_exponents_of_the_surface(noise: float) -> None:
    runs = curved(1.6 ** np.arange(-4, 5), noise, seeds=2)
    found = fit_envelope(*runs, "all runs", settings=FitSettings(resamples=100))
    assert (found.status, found.sizes >= 5) == ("converged", True)
    a = TRUE.beta / (TRUE.alpha + TRUE.beta)
    # Sizes are a factor of 1.6 apart, so the best one is a staircase in compute.
    assert found.a.value == pytest.approx(a, abs=0.04)
    assert found.b.value == pytest.approx(1 - a, abs=0.04)
    assert found.a.low <= found.a.value <= found.a.high
    assert found.a.high - found.a.low < 0.2
    n = found.k * 1e19**found.a.value
    assert found.m * 1e19**found.b.value == pytest.approx(1e19 / 6 / n, rel=0.02)
    assert 0.99e17 < found.lowest_flops < found.highest_flops < 1.01e20


def test_without_curves_or_where_a_best_size_is_at_an_end_there_is_no_envelope() -> None:
    found = fit_envelope(*curved(0.02 * 1.6 ** np.arange(4)), "all runs")
    assert (found.status, found.a) == ("edge", None)
    assert "3 needed" in found.message
    table, curves = curved(1.6 ** np.arange(-3, 4))
    assert fit_envelope(table, curves.iloc[:0], "all runs") is None
    assert fit_envelope(table, curves, "nobody") is None
    few = FitSettings(estimators=("parabola",), resamples=20)
    assert fit_runs(table, settings=few).variants["all runs"].envelope is None
    given = fit_runs(table, settings=few, curves=curves).variants["all runs"]
    assert given.envelope.status == "converged"


def test_smoothing_keeps_a_line_to_its_ends_and_averages_noise() -> None:
    x = np.linspace(0, 2, 400)
    at = np.array([0.0, 0.7, 2.0])
    assert smoothed_curve(x, 3 - 0.5 * x, at) == pytest.approx(3 - 0.5 * at)
    draws = np.random.default_rng(0).standard_normal((200, len(x)))
    inner = [smoothed_curve(x, y, at)[1] for y in draws]
    # A Gaussian kernel averages over 2 sqrt(pi) standard deviations.
    effective = 2 * np.sqrt(np.pi) * SMOOTHING / (x[1] - x[0])
    assert np.std(inner) == pytest.approx(effective**-0.5, rel=0.15)
