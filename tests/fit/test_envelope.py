"""The envelope of training curves recovers a law where curves follow one surface."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings, fit_runs, run_table
from isoflop.fit.laws.envelope import SMOOTHING, fit_envelope, smoothed_curve
from isoflop.fit.surfaces.surface import Surface

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)
BUDGETS = (1e18, 1e19, 1e20)
POINTS = 60


def made(
    factors: np.ndarray, noise: float = 0.0, seeds: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs at `factors` times about the best size of each budget, and their curves."""
    generator = np.random.default_rng(0)
    runs = [
        (seed, c, n, c / 6 / n, float(TRUE.loss(n, c / 6 / n)))
        for c in BUDGETS
        for n in 0.6 * np.sqrt(c / 120) * factors
        for seed in range(seeds)
    ]
    columns = ["seed", "budget_flops", "parameters", "tokens", "loss"]
    table = run_table(pd.DataFrame(runs, columns=columns)).table
    curves = []
    for run in table.itertuples():
        tokens = run.tokens * np.arange(1, POINTS + 1) / POINTS
        loss = TRUE.loss(run.parameters, tokens) + noise * generator.standard_normal(POINTS)
        curves.append(pd.DataFrame({"run_id": run.run_id, "tokens": tokens, "loss": loss}))
    return table, pd.concat(curves)


@pytest.mark.parametrize("noise", [0.0, 0.01])
def test_exponents_of_the_surface_are_recovered(noise: float) -> None:
    found = fit_envelope(
        *made(1.6 ** np.arange(-4, 5), noise, seeds=2),
        "all runs",
        settings=FitSettings(resamples=100),
    )
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


def test_a_best_size_at_an_end_is_refused() -> None:
    found = fit_envelope(*made(0.02 * 1.6 ** np.arange(4)), "all runs")
    assert (found.status, found.a) == ("edge", None)
    assert "3 needed" in found.message


def test_without_curves_there_is_no_envelope() -> None:
    table, curves = made(1.6 ** np.arange(-3, 4))
    assert fit_envelope(table, curves.iloc[:0], "all runs") is None
    assert fit_envelope(table, curves, "nobody") is None
    alone = fit_runs(table, settings=FitSettings(estimators=("parabola",), resamples=20))
    assert alone.variants["all runs"].envelope is None
    given = fit_runs(
        table, settings=FitSettings(estimators=("parabola",), resamples=20), curves=curves
    )
    assert given.variants["all runs"].envelope.status == "converged"


def test_smoothing_keeps_a_line_to_its_ends_and_averages_noise() -> None:
    x = np.linspace(0, 2, 400)
    at = np.array([0.0, 0.7, 2.0])
    assert smoothed_curve(x, 3 - 0.5 * x, at) == pytest.approx(3 - 0.5 * at)
    noisy = np.random.default_rng(0).standard_normal((200, len(x)))
    inner = [smoothed_curve(x, y, at)[1] for y in noisy]
    # A Gaussian kernel averages over 2 sqrt(pi) standard deviations.
    effective = 2 * np.sqrt(np.pi) * SMOOTHING / (x[1] - x[0])
    assert np.std(inner) == pytest.approx(effective**-0.5, rel=0.15)
