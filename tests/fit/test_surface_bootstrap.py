"""Draws of a surface are what fitting each noisy copy on its own gives."""

import time

import numpy as np
import pytest

from isoflop.fit import FitSettings
from isoflop.fit.surfaces.bootstrap import (
    draws_source,
    noisy_copies,
    surface_draws,
    surface_intervals,
)
from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import Surface, compute_exponents

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


FITS = [fit_huber, fit_variable_projection]


def assert_same(row: np.ndarray, surface: Surface | None) -> None:
    assert surface is not None
    assert row[0] == pytest.approx(surface.E, rel=2e-3)
    assert row[3:5].tolist() == pytest.approx([surface.alpha, surface.beta], rel=5e-3)
    a, b = compute_exponents(surface.alpha, surface.beta)
    assert row[5:].tolist() == pytest.approx([float(a), float(b)], rel=5e-3)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [1, 3])
def test_draws_are_the_fits_of_the_noisy_copies(fit, size: int) -> None:
    n, d, y = runs()
    clusters = np.arange(len(n)) // size
    fitted = fit(SurfaceData.of(n, d, y))
    draws = surface_draws(
        fitted, SurfaceData.of(n, d, y), FitSettings(resamples=20, seed=3), clusters=clusters
    )
    data = SurfaceData.of(n, d, y)
    copies = noisy_copies(
        data, data.unknowns(fitted.surface), clusters, 20, np.random.default_rng(3), np.eye(5)
    )
    for row, losses in zip(draws[:4], copies[:4], strict=True):
        surface = fit(SurfaceData.of(n, d, losses)).surface
        assert surface is not None
        assert row[0] == pytest.approx(surface.E, rel=2e-3)
        assert row[3:5].tolist() == pytest.approx([surface.alpha, surface.beta], rel=5e-3)
        a, b = compute_exponents(surface.alpha, surface.beta)
        assert row[5:].tolist() == pytest.approx([float(a), float(b)], rel=5e-3)


def test_copies_scatter_as_each_run_does() -> None:
    n, d, y = (np.tile(column, 20) for column in runs(noise=0.0))
    # The second half of the runs is noisier.
    spread = np.where(np.arange(len(n)) < len(n) // 2, 0.01, 0.03)
    y = y * np.exp(spread * np.random.default_rng(0).standard_normal(len(y)))
    data, fitted = SurfaceData.of(n, d, y), fit_variable_projection(SurfaceData.of(n, d, y))
    start = data.unknowns(fitted.surface)
    copies = noisy_copies(data, start, np.arange(len(n)), 500, np.random.default_rng(0), np.eye(5))
    noise = np.log(copies / fitted.surface.loss(n, d))
    assert np.abs(noise.mean()) < 2e-4
    for wanted in (0.01, 0.03):
        of_these = noise[:, spread == wanted]
        assert np.sqrt((of_these**2).mean()) == pytest.approx(wanted, rel=0.1)


def test_the_runs_of_a_cluster_are_moved_together() -> None:
    n, d, y = runs()
    data, fitted = SurfaceData.of(n, d, y), fit_variable_projection(SurfaceData.of(n, d, y))
    labels = np.repeat(np.arange(9), 5)
    start = data.unknowns(fitted.surface)
    copies = noisy_copies(data, start, labels, 40, np.random.default_rng(0), np.eye(5))
    signs = np.sign(np.log(copies / fitted.surface.loss(n, d)))
    # A pair of runs is on the same side in every copy, or on opposite sides in every copy.
    same = (signs[:, :-1] == signs[:, 1:]).mean(axis=0)
    within = labels[:-1] == labels[1:]
    assert set(same[within]) == {0.0, 1.0}
    assert ((same[~within] > 0.1) & (same[~within] < 0.9)).all()


@pytest.mark.parametrize("fit", FITS)
def test_the_limit_of_many_runs_is_what_refits_give(fit, monkeypatch) -> None:
    n, d, y = (np.tile(column, 12) for column in runs(noise=0.0))
    y = y * np.exp(0.01 * np.random.default_rng(2).standard_normal(len(y)))
    fitted = fit(SurfaceData.of(n, d, y))
    refits = surface_draws(fitted, SurfaceData.of(n, d, y), FitSettings(resamples=400))
    monkeypatch.setattr("isoflop.fit.surfaces.bootstrap.BOOTSTRAP_RUNS", 100)
    assert draws_source(len(n), clustered=False) == "limit"
    limit = surface_draws(fitted, SurfaceData.of(n, d, y), FitSettings(resamples=4000))
    for column in (0, 3, 4, 5):
        assert limit[:, column].std() == pytest.approx(refits[:, column].std(), rel=0.2), column
        assert np.median(limit[:, column]) == pytest.approx(np.median(refits[:, column]), rel=0.02)


def test_a_table_of_thousands_of_runs_takes_the_limit_and_seconds() -> None:
    n, d, y = (np.tile(column, 150) for column in runs(noise=0.0))
    y = y * np.exp(0.01 * np.random.default_rng(2).standard_normal(len(y)))
    started = time.perf_counter()
    fitted = fit_huber(SurfaceData.of(n, d, y))
    intervals = surface_intervals(
        fitted, surface_draws(fitted, SurfaceData.of(n, d, y), FitSettings())
    )
    assert time.perf_counter() - started < 20
    for name, truth in TRUE.model_dump().items():
        assert intervals[name].low < truth < intervals[name].high, name
        assert intervals[name].high / intervals[name].low < 1.5, name


def test_exponents_of_the_optimum_follow_the_flops_per_token() -> None:
    n, d, y = runs()
    fit = fit_variable_projection(SurfaceData.of(n, d, y))
    draws = surface_draws(fit, SurfaceData.of(n, d, y), FitSettings(resamples=20), slope=0.9)
    alpha, beta, a, b = draws[:, 3:].T
    assert a == pytest.approx(beta / (alpha + 0.9 * beta))
    assert b == pytest.approx(1 - 0.9 * a)
    interval = surface_intervals(fit, draws, slope=0.9)["a"]
    s = fit.surface
    assert interval.value == pytest.approx(s.beta / (s.alpha + 0.9 * s.beta))


def test_without_noise_the_interval_is_a_point() -> None:
    n, d, y = runs(noise=0.0)
    fit = fit_huber(SurfaceData.of(n, d, y))
    for name, interval in surface_intervals(
        fit, surface_draws(fit, SurfaceData.of(n, d, y), FitSettings(resamples=50))
    ).items():
        assert interval.low == pytest.approx(interval.high, rel=1e-4), name


@pytest.mark.parametrize("limit", [10, 1000])
def test_shared_noise_widens_the_interval_only_when_it_is_clustered(limit, monkeypatch) -> None:
    monkeypatch.setattr("isoflop.fit.surfaces.bootstrap.BOOTSTRAP_RUNS", limit)
    n, d, y = runs(budgets=12, noise=0.002)
    labels = np.repeat(np.arange(12), 9)
    y = y * np.exp(0.03 * np.random.default_rng(1).standard_normal(12))[labels]
    fit = fit_variable_projection(SurfaceData.of(n, d, y))
    names = [f"lab {label}" for label in labels]
    alone = surface_intervals(fit, surface_draws(fit, SurfaceData.of(n, d, y), FitSettings()))["E"]
    clustered = surface_intervals(
        fit, surface_draws(fit, SurfaceData.of(n, d, y), FitSettings(), clusters=names)
    )["E"]
    assert clustered.high - clustered.low > 1.2 * (alone.high - alone.low)


@pytest.mark.parametrize(
    ("clusters", "message"), [([1, 2], "a label per run"), (["x"] * 45, "all runs are in one")]
)
def test_clusters_that_cannot_be_resampled_are_told(clusters, message) -> None:
    n, d, y = runs()
    fit = fit_variable_projection(SurfaceData.of(n, d, y))
    with pytest.raises(ValueError, match=message):
        surface_draws(fit, SurfaceData.of(n, d, y), FitSettings(), clusters=clusters)
