import math

import numpy as np
import pytest

from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import FlopsLaw, Surface, SurfaceFit, surface_minimum

FITS = [fit_variable_projection, fit_huber]
CHINCHILLA = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
SYMMETRIC = Surface(E=1.7, A=400, B=400, alpha=0.34, beta=0.34)
SIX_ND = FlopsLaw(slope=1.0, height=math.log(6))
SMALL_SKEW = Surface(E=0.8, A=500, B=90, alpha=0.62, beta=0.25)


def optimum(surface: Surface, flops: float) -> float:
    """Optimal parameters for C = 6 N D, in closed form."""
    ratio = surface.alpha * surface.A / (surface.beta * surface.B)
    power = 1 / (surface.alpha + surface.beta)
    return ratio**power * (flops / 6) ** (surface.beta * power)


def grid(surface: Surface, budgets: list[float], shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    sizes = [optimum(surface, c) * 1.6 ** np.arange(-3.0 + shift, 4 + shift) for c in budgets]
    tokens = [c / 6 / n for c, n in zip(budgets, sizes, strict=True)]
    return np.concatenate(sizes), np.concatenate(tokens)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize(
    ("truth", "budgets"),
    [
        (CHINCHILLA, [6e18, 2e19, 1e20]),
        (SMALL_SKEW, [5e12, 1.6e13, 5e13]),
        (SYMMETRIC, [1e18, 1e19, 1e20]),
    ],
    ids=["published", "small", "symmetric"],
)
@pytest.mark.parametrize("shift", [-2, 0, 2])
def test_noise_free_law_is_recovered(fit, truth: Surface, budgets: list[float], shift: int) -> None:
    n, d = grid(truth, budgets, shift)
    result = fit(SurfaceData.of(n, d, truth.loss(n, d)))
    assert result.status == "converged"
    found = result.surface.model_dump()
    for name, value in truth.model_dump().items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("fit", FITS)
def test_minimum_along_a_budget_is_the_closed_form(fit) -> None:
    n, d = grid(CHINCHILLA, [6e18, 2e19, 1e20], shift=1)
    losses = CHINCHILLA.loss(n, d)
    result = fit(SurfaceData.of(n, d, losses))
    flops = 2e19
    at = slice(7, 14)
    minimum = surface_minimum(result, n[at], losses[at], flops, SIX_ND)
    exact = optimum(CHINCHILLA, flops)
    assert minimum.status == "converged"
    assert minimum.parameters == pytest.approx(exact, rel=1e-4)
    assert minimum.loss == pytest.approx(float(CHINCHILLA.loss(exact, flops / 6 / exact)), rel=1e-9)


def test_huber_ignores_an_outlier_that_moves_least_squares() -> None:
    n, d = grid(CHINCHILLA, [6e18, 2e19, 1e20])
    losses = CHINCHILLA.loss(n, d)
    losses[3] *= 1.05
    huber, squares = (
        fit_huber(SurfaceData.of(n, d, losses)),
        fit_variable_projection(SurfaceData.of(n, d, losses)),
    )
    assert pytest.approx(CHINCHILLA.E, rel=0.01) == huber.surface.E
    assert abs(squares.surface.E - CHINCHILLA.E) > 3 * abs(huber.surface.E - CHINCHILLA.E)


def test_huber_reaches_a_stationary_point_no_worse_than_the_truth() -> None:
    rng = np.random.default_rng(1)
    n = np.exp(rng.uniform(np.log(5e7), np.log(1e10), 120))
    d = np.exp(rng.uniform(np.log(5e8), np.log(3e11), 120))
    losses = CHINCHILLA.loss(n, d) * np.exp(rng.normal(0, 0.005, 120))

    def cost(surface: Surface) -> float:
        size = np.abs(np.log(surface.loss(n, d) / losses))
        return float(np.where(size <= 1e-3, size**2 / 2, 1e-3 * (size - 5e-4)).sum())

    fit = fit_huber(SurfaceData.of(n, d, losses))
    assert fit.status == "converged"
    best = cost(fit.surface)
    assert best < cost(CHINCHILLA)
    for name, value in fit.surface.model_dump().items():
        for factor in (1 - 1e-4, 1 + 1e-4):
            moved = fit.surface.model_copy(update={name: value * factor})
            assert cost(moved) >= best - 1e-12, name


@pytest.mark.parametrize("fit", FITS)
def test_one_budget_is_called_ill_conditioned_but_still_has_a_minimum(fit) -> None:
    n, d = grid(SMALL_SKEW, [5e12])
    losses = SMALL_SKEW.loss(n, d)
    result = fit(SurfaceData.of(n, d, losses))
    assert result.status == "ill_conditioned"
    minimum = surface_minimum(result, n, losses, 5e12, SIX_ND)
    assert minimum.parameters == pytest.approx(optimum(SMALL_SKEW, 5e12), rel=1e-3)
    assert "do not tell" in minimum.message


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("seed", range(4))
def test_noise_does_not_make_one_budget_look_well_conditioned(fit, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d = grid(SMALL_SKEW, [5e12] * 3)
    # Shapes cost a few percent more or less than 6 N per token.
    d = d * np.exp(0.03 * rng.normal(size=len(d)))
    result = fit(
        SurfaceData.of(n, d, SMALL_SKEW.loss(n, d) * np.exp(0.01 * rng.normal(size=len(n))))
    )
    assert result.status in ("ill_conditioned", "at_bound")


def test_minima_do_not_follow_the_scatter_of_grouped_budgets() -> None:
    rng = np.random.default_rng(3)
    flops = np.repeat([1e18, 1e19, 1e20], 60)
    n = np.array([optimum(CHINCHILLA, c) for c in flops]) * np.exp(rng.uniform(-1.5, 1.5, 180))
    d = flops / 6 / n * np.exp(rng.uniform(-0.01, 0.01, 180))
    losses = CHINCHILLA.loss(n, d)
    result = fit_variable_projection(SurfaceData.of(n, d, losses))
    at = flops == 1e19
    minimum = surface_minimum(result, n[at], losses[at], 1e19, SIX_ND)
    assert minimum.parameters == pytest.approx(optimum(CHINCHILLA, 1e19), rel=1e-4)


@pytest.mark.parametrize("fit", FITS)
def test_loss_that_does_not_depend_on_size_is_at_a_bound(fit) -> None:
    n, d = grid(CHINCHILLA, [6e18, 2e19, 1e20])
    result = fit(SurfaceData.of(n, d, 1.5 + 2000 / d**0.36))
    assert result.status == "at_bound"


@pytest.mark.parametrize("fit", FITS)
def test_too_few_points_are_refused_and_so_is_their_minimum(fit) -> None:
    n, d = grid(CHINCHILLA, [6e18])
    losses = CHINCHILLA.loss(n, d)
    result = fit(SurfaceData.of(np.repeat(n[:5], 3), np.repeat(d[:5], 3), np.repeat(losses[:5], 3)))
    assert (result.status, result.surface) == ("too_few", None)
    minimum = surface_minimum(result, n, losses, 6e18, SIX_ND)
    assert (minimum.status, minimum.loss) == ("too_few", None)


@pytest.mark.parametrize("shift", [-4, 4])
def test_minimum_outside_the_measured_sizes_is_refused(shift: int) -> None:
    n, d = grid(CHINCHILLA, [6e18, 2e19, 1e20], shift)
    losses = CHINCHILLA.loss(n, d)
    fit = fit_variable_projection(SurfaceData.of(n, d, losses))
    minimum = surface_minimum(fit, n[:7], losses[:7], 6e18, SIX_ND)
    assert (minimum.status, minimum.loss) == ("edge", None)
    assert minimum.side == ("larger" if shift < 0 else "smaller")


def test_surface_lowest_at_an_end_is_refused_though_an_inner_size_is_lowest() -> None:
    n, d = grid(CHINCHILLA, [6e18], shift=4)
    losses = CHINCHILLA.loss(n, d)
    losses[1] = losses[0] - 1e-3
    fit = SurfaceFit(
        estimator="surface", status="converged", message="", surface=CHINCHILLA, points=7
    )
    minimum = surface_minimum(fit, n, losses, 6e18, SIX_ND)
    assert (minimum.status, minimum.side) == ("edge", "smaller")


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
def test_values_that_cannot_be_fitted_are_errors(fit, bad: float) -> None:
    n, d = grid(CHINCHILLA, [6e18])
    losses = CHINCHILLA.loss(n, d)
    losses[2] = bad
    with pytest.raises(ValueError, match="losses must be positive and finite"):
        fit(SurfaceData.of(n, d, losses))
    with pytest.raises(ValueError, match="shapes"):
        fit(SurfaceData.of(n, d[:3], losses))
