"""Surfaces with alpha = beta, on runs at fixed tokens per parameter (arXiv 2403.08540)."""

import numpy as np
import pytest
from scipy import stats

from isoflop.fit import FitSettings
from isoflop.fit.surfaces.bootstrap import surface_draws
from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import Surface

TIED = Surface(E=1.6, A=300.0, B=900.0, alpha=0.33, beta=0.33)
FITS = [fit_huber, fit_variable_projection]


def grid(noise: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return five sizes at five numbers of tokens per parameter, as over-trained grids have."""
    n, m = np.meshgrid(np.geomspace(1.1e7, 4.1e8, 5), [5.0, 20.0, 40.0, 160.0, 640.0])
    n, d = n.ravel(), (n * m).ravel()
    draws = np.random.default_rng(seed).standard_normal(len(n))
    return n, d, TIED.loss(n, d) * np.exp(noise * draws)


@pytest.mark.parametrize("fit", FITS)
def test_an_exact_law_is_recovered_and_the_free_fit_agrees(fit) -> None:
    held, free = (
        fit(SurfaceData.of(*grid()), FitSettings(equal_exponents=True)),
        fit(SurfaceData.of(*grid())),
    )
    assert held.status == free.status == "converged"
    assert held.equal_exponents
    assert not free.equal_exponents
    assert held.surface.alpha == held.surface.beta
    for name, value in TIED.model_dump().items():
        assert getattr(held.surface, name) == pytest.approx(value, rel=1e-7), name
        assert getattr(free.surface, name) == pytest.approx(value, rel=1e-5), name
    assert held.condition < free.condition


def test_it_is_the_published_form() -> None:
    """L = E + (a M^eta + b M^-eta) C^-eta with M = D / N and C = 6 N D is ours with alpha 2 eta."""
    n, d, losses = grid()
    eta = TIED.alpha / 2
    a, b = TIED.A * 6**eta, TIED.B * 6**eta
    ratio, flops = d / n, 6 * n * d
    published = TIED.E + (a * ratio**eta + b * ratio**-eta) * flops**-eta
    np.testing.assert_allclose(published, losses, rtol=1e-13)


@pytest.mark.parametrize("fit", FITS)
def test_with_noise_intervals_hold_the_law_and_are_narrower(fit) -> None:
    n, d, y = grid(0.003, seed=5)
    held, free = (
        fit(SurfaceData.of(n, d, y), FitSettings(equal_exponents=True)),
        fit(SurfaceData.of(n, d, y)),
    )
    draws = surface_draws(held, SurfaceData.of(n, d, y), FitSettings(resamples=400))
    apart = surface_draws(free, SurfaceData.of(n, d, y), FitSettings(resamples=400))
    assert (draws[:, 3] == draws[:, 4]).all()
    assert draws[:, 3].std() < apart[:, 3].std()
    low, high = np.quantile(draws[:, 3], [0.005, 0.995])
    assert low < TIED.alpha < high
    found, wider = (
        profile_intervals(held, SurfaceData.of(n, d, y)),
        profile_intervals(free, SurfaceData.of(n, d, y)),
    )
    assert found["alpha"] == found["beta"]
    assert found["alpha"].high - found["alpha"].low < wider["alpha"].high - wider["alpha"].low
    assert found["alpha"].low < held.surface.alpha < found["alpha"].high


def test_the_profile_is_linear_theorys_with_four_unknowns_when_noise_is_small() -> None:
    n, d, y = grid(1e-5)
    fitted = fit_variable_projection(SurfaceData.of(n, d, y), FitSettings(equal_exponents=True))
    s = fitted.surface
    falls = s.A * np.log(n) * n**-s.alpha + s.B * np.log(d) * d**-s.alpha
    columns = np.stack([np.ones_like(n), n**-s.alpha, d**-s.alpha, -falls], 1)
    residual = y - s.loss(n, d)
    variance = residual @ residual / (len(n) - 4)
    errors = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * variance)
    found = profile_intervals(fitted, SurfaceData.of(n, d, y))
    for name, error in zip(("E", "A", "B", "alpha"), errors, strict=True):
        half = (found[name].high - found[name].low) / 2
        assert half == pytest.approx(stats.t.ppf(0.975, len(n) - 4) * error, rel=0.02), name


def test_many_runs_have_the_limit_with_equal_exponents(monkeypatch) -> None:
    monkeypatch.setattr("isoflop.fit.surfaces.bootstrap.BOOTSTRAP_RUNS", 20)
    n, d, y = grid(0.003)
    held = fit_variable_projection(SurfaceData.of(n, d, y), FitSettings(equal_exponents=True))
    draws = surface_draws(held, SurfaceData.of(n, d, y), FitSettings(resamples=200))
    np.testing.assert_allclose(draws[:, 3], draws[:, 4], rtol=1e-12)
    assert draws[:, 3].std() > 0


@pytest.mark.parametrize("fit", FITS)
def test_four_unknowns_need_five_pairs(fit) -> None:
    n, d, y = (column[[0, 4, 12, 20, 23]] for column in grid())
    assert fit(SurfaceData.of(n, d, y)).status == "too_few"
    held = fit(SurfaceData.of(n, d, y), FitSettings(equal_exponents=True))
    assert held.status != "too_few"
    assert held.surface.alpha == pytest.approx(TIED.alpha, rel=1e-4)
    few = fit(SurfaceData.of(n[:4], d[:4], y[:4]), FitSettings(equal_exponents=True))
    assert (few.status, few.message) == (
        "too_few",
        "4 distinct pairs of size and tokens, 5 needed",
    )
    assert few.equal_exponents


@pytest.mark.parametrize("fit", FITS)
def test_one_number_of_tokens_per_parameter_does_not_tell_a_from_b(fit) -> None:
    n = np.geomspace(1e7, 1e9, 12)
    found = fit(SurfaceData.of(n, 20 * n, TIED.loss(n, 20 * n)), FitSettings(equal_exponents=True))
    assert found.status in ("ill_conditioned", "at_bound")
