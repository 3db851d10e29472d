"""Draws of a surface are fits of noisy copies; profiles are where the objective says."""

import numpy as np
import pytest
from known_surfaces import TRUE, Columns, crossed, noisy
from scipy import special
from test_surface import TIED, TOGETHER, by_each, over_trained

from isoflop.fit import FitSettings
from isoflop.fit.surfaces.bootstrap import (
    draws_source,
    noisy_copies,
    surface_draws,
    surface_intervals,
)
from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import compute_exponents

LIMIT = "isoflop.fit.surfaces.bootstrap.BOOTSTRAP_RUNS"


def runs(budgets: int = 5, noise: float | np.ndarray = 0.01, copies: int = 1) -> Columns:
    """Return nine sizes at each budget, with noise on log loss."""
    c = np.geomspace(1e18, 1e21, budgets)
    n = (np.sqrt(c / 120)[:, None] * 1.5 ** np.arange(-4, 5)).ravel()
    return noisy(TRUE, np.tile(n, copies), np.tile(np.repeat(c, 9) / 6 / n, copies), noise)


@by_each
@pytest.mark.parametrize("size", [1, 3])
def test_draws_are_the_fits_of_the_noisy_copies(fit, size: int) -> None:
    n, d, y = runs()
    data = SurfaceData.of(n, d, y)
    clusters = np.arange(len(n)) // size
    fitted = fit(data)
    draws = surface_draws(fitted, data, FitSettings(resamples=20, seed=3), clusters=clusters)
    start, generator = data.unknowns(fitted.surface), np.random.default_rng(3)
    copies = noisy_copies(data, start, clusters, 20, generator, np.eye(5))
    for row, losses in zip(draws[:4], copies[:4], strict=True):
        surface = fit(SurfaceData.of(n, d, losses)).surface
        exponents = surface.alpha, surface.beta
        assert row[0] == pytest.approx(surface.E, rel=2e-3)
        assert row[3:].tolist() == pytest.approx(
            [*exponents, *compute_exponents(*exponents)], rel=5e-3
        )


def test_copies_scatter_as_each_run_does() -> None:
    # The second half of the runs is noisier.
    spread = np.repeat([0.01, 0.03], 450)
    n, d, y = runs(noise=spread, copies=20)
    data = SurfaceData.of(n, d, y)
    surface = fit_variable_projection(data).surface
    generator = np.random.default_rng(0)
    start, labels = data.unknowns(surface), np.arange(900)
    copies = noisy_copies(data, start, labels, 500, generator, np.eye(5))
    noise = np.log(copies / surface.loss(n, d))
    assert np.abs(noise.mean()) < 2e-4
    for wanted in (0.01, 0.03):
        of_these = noise[:, spread == wanted]
        assert np.sqrt((of_these**2).mean()) == pytest.approx(wanted, rel=0.1)


@by_each
@pytest.mark.parametrize("settings", [FitSettings(), TOGETHER], ids=["free", "equal exponents"])
def test_the_limit_of_many_runs_is_what_refits_give(fit, settings, monkeypatch) -> None:
    data = SurfaceData.of(*runs(copies=12))
    fitted = fit(data, settings)
    refits = surface_draws(fitted, data, FitSettings(resamples=400))
    monkeypatch.setattr(LIMIT, 100)
    assert draws_source(len(data), clustered=False) == "limit"
    limit = surface_draws(fitted, data, FitSettings(resamples=4000))
    for column in (0, 3, 4):
        assert limit[:, column].std() == pytest.approx(refits[:, column].std(), rel=0.2), column
        assert np.median(limit[:, column]) == pytest.approx(np.median(refits[:, column]), rel=0.02)


def test_without_noise_the_interval_is_a_point_and_exponents_follow_the_flops_per_token() -> None:
    data = SurfaceData.of(*runs(noise=0.0))
    fit = fit_huber(data)
    draws = surface_draws(fit, data, FitSettings(resamples=50), slope=0.9)
    found = surface_intervals(fit, draws, slope=0.9)
    for name, interval in found.items():
        assert interval.low == pytest.approx(interval.high, rel=1e-4), name
    s = fit.surface
    assert found["a"].value == pytest.approx(s.beta / (s.alpha + 0.9 * s.beta))
    assert found["b"].value == pytest.approx(1 - 0.9 * found["a"].value)


@pytest.mark.parametrize("limit", [10, 1000])
def test_shared_noise_widens_the_interval_only_when_it_is_clustered(limit, monkeypatch) -> None:
    monkeypatch.setattr(LIMIT, limit)
    n, d, y = runs(budgets=12, noise=0.002)
    labels = np.repeat(np.arange(12), 9)
    y = y * np.exp(0.03 * np.random.default_rng(1).standard_normal(12))[labels]
    data = SurfaceData.of(n, d, y)
    fit = fit_variable_projection(data)
    alone, clustered = (
        surface_intervals(fit, surface_draws(fit, data, FitSettings(), clusters=names))["E"]
        for names in (None, [f"lab {label}" for label in labels])
    )
    assert clustered.high - clustered.low > 1.2 * (alone.high - alone.low)
    with pytest.raises(ValueError, match="all runs are in one"):
        surface_draws(fit, data, FitSettings(), clusters=["x"] * len(n))


@by_each
def test_with_equal_exponents_intervals_hold_the_law_and_are_narrower(fit) -> None:
    data = SurfaceData.of(*over_trained(0.003, seed=5))
    held, free = fit(data, TOGETHER), fit(data)
    draws, apart = (surface_draws(one, data, FitSettings(resamples=400)) for one in (held, free))
    assert (draws[:, 3] == draws[:, 4]).all()
    assert draws[:, 3].std() < apart[:, 3].std()
    low, high = np.quantile(draws[:, 3], [0.005, 0.995])
    assert low < TIED.alpha < high
    found, wider = (profile_intervals(one, data) for one in (held, free))
    assert found["alpha"] == found["beta"]
    assert found["alpha"].high - found["alpha"].low < wider["alpha"].high - wider["alpha"].low
    assert found["alpha"].low < held.surface.alpha < found["alpha"].high


@by_each
def test_profiles_hold_the_fit_and_grow_with_the_level(fit, monkeypatch) -> None:
    data = SurfaceData.of(*crossed(noise=0.005))
    fitted = fit(data)
    found, wider = (profile_intervals(fitted, data, level=level) for level in (0.95, 0.99))
    assert list(found) == ["E", "A", "B", "alpha", "beta"]
    for name, one in found.items():
        assert wider[name].low < one.low < one.value < one.high < wider[name].high
    # An end that is not found is none above, and zero below.
    monkeypatch.setattr("isoflop.fit.surfaces.profile.WIDENINGS", 1)
    found = profile_intervals(fitted, data, level=1 - 1e-9)
    assert {(one.low, one.high) for one in found.values()} == {(0.0, None)}


@pytest.mark.parametrize("settings", [FitSettings(), TOGETHER], ids=["free", "equal exponents"])
def test_profiles_of_least_squares_are_linear_theorys_when_noise_is_small(settings) -> None:
    n, d, y = over_trained(1e-5)
    data = SurfaceData.of(n, d, y)
    fitted = fit_variable_projection(data, settings)
    s = fitted.surface
    falls = [-s.A * np.log(n) * n**-s.alpha, -s.B * np.log(d) * d**-s.beta]
    falls = [sum(falls)] if settings.equal_exponents else falls
    columns = np.stack([np.ones_like(n), n**-s.alpha, d**-s.beta, *falls], axis=1)
    residual, free = y - s.loss(n, d), len(n) - columns.shape[1]
    variance = np.linalg.inv(columns.T @ columns) * (residual @ residual) / free
    found = profile_intervals(fitted, data)
    for name, error in zip(
        ("E", "A", "B", "alpha", "beta"), np.sqrt(np.diag(variance)), strict=False
    ):
        half = (found[name].high - found[name].low) / 2
        assert half == pytest.approx(special.stdtrit(free, 0.975) * error, rel=0.02), name
