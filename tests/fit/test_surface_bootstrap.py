"""The bootstrap of a surface agrees with fitting each resample on its own."""

import numpy as np
import pytest

from isoflop.fit import fit_huber, fit_variable_projection, surface_draws, surface_intervals
from isoflop.fit.surface import Surface, surface_minimum
from isoflop.fit.surface_bootstrap import _weights as weights_of
from isoflop.fit.surface_bootstrap import compute_exponents, draws_along_budget

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)


def runs(budgets: int = 5, sizes: int = 9, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Return columns N, D and loss of runs with noise on log loss."""
    rows = [
        (n, c / (6 * n))
        for c in np.geomspace(1e18, 1e21, budgets)
        for n in np.sqrt(c / 120) * 1.5 ** np.arange(-(sizes // 2), sizes // 2 + 1)
    ]
    n, d = np.array(rows).T
    draws = np.random.default_rng(seed).standard_normal(len(n))
    return np.stack([n, d, TRUE.loss(n, d) * np.exp(noise * draws)])


@pytest.mark.parametrize("fit", [fit_huber, fit_variable_projection])
def test_draws_are_the_fits_of_the_resamples(fit) -> None:
    n, d, y = runs()
    draws = surface_draws(fit(n, d, y), n, d, y, resamples=5, seed=3)
    times = weights_of(len(n), None, 5, np.random.default_rng(3)).astype(int)
    for row, counts in zip(draws, times, strict=True):
        chosen = np.repeat(np.arange(len(n)), counts)
        surface = fit(n[chosen], d[chosen], y[chosen]).surface
        assert surface is not None
        assert row[0] == pytest.approx(surface.E, rel=2e-3)
        assert row[3:5].tolist() == pytest.approx([surface.alpha, surface.beta], rel=5e-3)
        a, b = compute_exponents(surface.alpha, surface.beta)
        assert row[5:].tolist() == pytest.approx([float(a), float(b)], rel=5e-3)


def test_exponents_of_the_optimum_add_up_to_one() -> None:
    a, b = compute_exponents(0.34, 0.28)
    assert float(a) == pytest.approx(0.28 / 0.62)
    assert float(a + b) == pytest.approx(1)


def test_without_noise_the_interval_is_a_point() -> None:
    n, d, y = runs(noise=0.0)
    fit = fit_huber(n, d, y)
    for name, interval in surface_intervals(fit, surface_draws(fit, n, d, y, resamples=50)).items():
        assert interval.low == pytest.approx(interval.high, rel=1e-4), name


def test_clusters_are_drawn_whole() -> None:
    labels = np.repeat(np.arange(9), 5)
    times = weights_of(45, labels, 30, np.random.default_rng(0))
    assert (times.sum(axis=1) == 45).all()
    for label in range(9):
        assert (np.ptp(times[:, labels == label], axis=1) == 0).all()


def test_shared_noise_widens_the_interval_only_when_it_is_clustered() -> None:
    n, d, y = runs(budgets=12, noise=0.002)
    labels = np.repeat(np.arange(12), 9)
    y = y * np.exp(0.03 * np.random.default_rng(1).standard_normal(12))[labels]
    fit = fit_huber(n, d, y)
    alone = surface_intervals(fit, surface_draws(fit, n, d, y))["E"]
    clustered = surface_intervals(fit, surface_draws(fit, n, d, y, clusters=labels))["E"]
    assert clustered.high - clustered.low > 1.2 * (alone.high - alone.low)


def test_minima_along_a_budget_agree_with_the_search() -> None:
    n, d, y = runs(noise=0.0)
    fit = fit_huber(n, d, y)
    row = np.array([[TRUE.E, TRUE.A, TRUE.B, TRUE.alpha, TRUE.beta, 0, 0]])
    here = slice(18, 27)
    log_n, loss = draws_along_budget(row, n[here], d[here])
    minimum = surface_minimum(fit, n[here], y[here], d[here])
    assert minimum.parameters is not None
    assert np.exp(log_n[0]) == pytest.approx(minimum.parameters, rel=1e-4)
    assert loss[0] == pytest.approx(minimum.loss, rel=1e-7)


def test_a_surface_lowest_at_an_end_has_no_minimum_there() -> None:
    n, d, _ = runs()
    row = np.array([[1.0, 1e-9, TRUE.B, TRUE.alpha, TRUE.beta, 0, 0]])
    log_n, loss = draws_along_budget(row, n[:9], d[:9])
    assert np.isnan(log_n[0])
    assert np.isnan(loss[0])
