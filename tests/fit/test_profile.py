"""Profile intervals of the surface."""

import numpy as np
import pytest

from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import Surface

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)


def runs(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n, d = np.meshgrid(np.geomspace(2e7, 2e10, 8), np.geomspace(1e9, 5e11, 6))
    n, d = n.ravel(), d.ravel()
    draws = np.random.default_rng(seed).standard_normal(len(n))
    return n, d, TRUE.loss(n, d) * np.exp(noise * draws)


@pytest.mark.parametrize("fit", [fit_huber, fit_variable_projection])
def test_intervals_hold_the_fit_and_are_where_the_objective_says(fit) -> None:
    columns = runs(0.005)
    fitted = fit(SurfaceData.of(*columns))
    found = profile_intervals(fitted, SurfaceData.of(*columns))
    assert list(found) == ["E", "A", "B", "alpha", "beta"]
    for interval in found.values():
        assert interval.low < interval.value < interval.high
    wider = profile_intervals(fitted, SurfaceData.of(*columns), level=0.99)
    for name, interval in found.items():
        assert wider[name].low < interval.low
        assert wider[name].high > interval.high


def test_least_squares_intervals_agree_with_linear_theory_when_noise_is_small() -> None:
    n, d, y = runs(1e-5)
    fitted = fit_variable_projection(SurfaceData.of(n, d, y))
    s = fitted.surface
    assert s is not None
    columns = np.stack(
        [
            np.ones_like(n),
            n**-s.alpha,
            d**-s.beta,
            -s.A * np.log(n) * n**-s.alpha,
            -s.B * np.log(d) * d**-s.beta,
        ],
        1,
    )
    residual = y - s.loss(n, d)
    variance = residual @ residual / (len(n) - 5)
    errors = np.sqrt(np.diag(np.linalg.inv(columns.T @ columns)) * variance)
    from scipy import stats

    t = stats.t.ppf(0.975, len(n) - 5)
    found = profile_intervals(fitted, SurfaceData.of(n, d, y))
    for name, error in zip(("E", "A", "B", "alpha", "beta"), errors, strict=True):
        half = (found[name].high - found[name].low) / 2
        assert half == pytest.approx(t * error, rel=0.02), name


def test_an_unbounded_end_is_none_above_and_zero_below(monkeypatch) -> None:
    monkeypatch.setattr("isoflop.fit.surfaces.profile.WIDENINGS", 1)
    columns = runs(0.02)
    found = profile_intervals(fit_huber(SurfaceData.of(*columns)), SurfaceData.of(*columns))
    assert {(one.low, one.high) for one in found.values()} == {(0.0, None)}


@pytest.mark.slow
@pytest.mark.parametrize("fit", [fit_huber, fit_variable_projection])
def test_coverage(fit) -> None:
    """Nominal 95% over 200 tables; least squares sees noise that grows with the loss."""
    held = np.zeros(5)
    for seed in range(200):
        columns = runs(0.004, seed)
        found = profile_intervals(fit(SurfaceData.of(*columns)), SurfaceData.of(*columns))
        truth = TRUE.model_dump()
        held += [i.low <= truth[name] <= i.high for name, i in found.items()]
    assert (held / 200 >= 0.88).all(), held
    assert (held / 200 <= 0.99).all(), held


def test_too_few_runs_or_no_surface_is_told() -> None:
    n, d, y = (column[:5] for column in runs(0.01))
    fitted = fit_huber(SurfaceData.of(n, d, y))
    with pytest.raises(ValueError, match="no surface to profile"):
        profile_intervals(fitted, SurfaceData.of(n, d, y))
