"""Surfaces are recovered from runs of a known one, or it is said why not."""

import math

import numpy as np
import pytest
from known_surfaces import (
    CHINCHILLA,
    FITS,
    SIX_ND,
    SIZES,
    SYMMETRIC,
    TRUE,
    Columns,
    along_budgets,
    noisy,
    optimum,
)

from isoflop.fit import FitSettings
from isoflop.fit.surfaces.data import DIRECTIONS, SurfaceData
from isoflop.fit.surfaces.descent import SurfaceObjective, descend, stationary
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import Surface, surface_minimum

SMALL_SKEW = Surface(E=0.8, A=500, B=90, alpha=0.62, beta=0.25)
TIED = Surface(E=1.6, A=300.0, B=900.0, alpha=0.33, beta=0.33)
BUDGETS = [6e18, 2e19, 1e20]
TOGETHER = FitSettings(equal_exponents=True)

by_each = pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))


def over_trained(noise: float = 0.0, seed: int = 0) -> Columns:
    """Return five sizes at five numbers of tokens per parameter, as over-trained grids have."""
    n, m = np.meshgrid(np.geomspace(1.1e7, 4.1e8, 5), [5.0, 20.0, 40.0, 160.0, 640.0])
    return noisy(TIED, n.ravel(), (n * m).ravel(), noise, seed)


@by_each
@pytest.mark.parametrize(
    ("truth", "budgets"),
    [(CHINCHILLA, BUDGETS), (SMALL_SKEW, [5e12, 1.6e13, 5e13]), (SYMMETRIC, [1e18, 1e19, 1e20])],
    ids=["published", "small", "symmetric"],
)
@pytest.mark.parametrize("shift", [-2, 0, 2])
def test_noise_free_law_is_recovered(fit, truth: Surface, budgets: list[float], shift: int) -> None:
    result = fit(SurfaceData.of(*along_budgets(truth, budgets, SIZES * 1.6**shift)))
    assert result.status == "converged"
    assert result.surface.row == pytest.approx(truth.row, rel=1e-6)


@by_each
def test_an_exact_law_with_equal_exponents_is_recovered_and_the_free_fit_agrees(fit) -> None:
    data = SurfaceData.of(*over_trained())
    held, free = fit(data, TOGETHER), fit(data)
    assert held.status == free.status == "converged"
    assert (held.equal_exponents, free.equal_exponents) == (True, False)
    assert held.surface.alpha == held.surface.beta
    assert held.surface.row == pytest.approx(TIED.row, rel=1e-7)
    assert free.surface.row == pytest.approx(TIED.row, rel=1e-5)
    assert held.condition < free.condition


def test_huber_reaches_a_stationary_point_no_worse_than_the_truth() -> None:
    rng = np.random.default_rng(1)
    n, d = np.exp(rng.uniform(np.log([[5e7], [5e8]]), np.log([[1e10], [3e11]]), (2, 120)))
    n, d, losses = noisy(CHINCHILLA, n, d, 0.005)

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


@by_each
def test_one_budget_is_called_ill_conditioned_but_still_has_a_minimum(fit) -> None:
    n, d, losses = along_budgets(SMALL_SKEW, [5e12])
    result = fit(SurfaceData.of(n, d, losses))
    assert result.status == "ill_conditioned"
    minimum = surface_minimum(result, n, losses, 5e12, SIX_ND)
    assert minimum.parameters == pytest.approx(optimum(SMALL_SKEW, 5e12), rel=1e-3)
    assert "do not tell" in minimum.message


@by_each
@pytest.mark.parametrize("seed", range(4))
def test_noise_does_not_make_one_budget_look_well_conditioned(fit, seed: int) -> None:
    n, d, _ = along_budgets(SMALL_SKEW, [5e12] * 3)
    # Shapes cost a few percent more or less than 6 N per token.
    d = d * np.exp(0.03 * np.random.default_rng(seed + 10).normal(size=len(d)))
    result = fit(SurfaceData.of(*noisy(SMALL_SKEW, n, d, 0.01, seed)))
    assert result.status in ("ill_conditioned", "at_bound")


@by_each
def test_what_the_runs_do_not_tell_is_at_a_bound_or_ill_conditioned(fit) -> None:
    n, d, _ = along_budgets(CHINCHILLA, BUDGETS)
    assert fit(SurfaceData.of(n, d, 1.5 + 2000 / d**0.36)).status == "at_bound"
    # At one number of tokens per parameter A is not told from B.
    n = np.geomspace(1e7, 1e9, 12)
    found = fit(SurfaceData.of(n, 20 * n, TIED.loss(n, 20 * n)), TOGETHER)
    assert found.status in ("ill_conditioned", "at_bound")


@by_each
def test_too_few_points_are_refused_and_so_is_their_minimum(fit) -> None:
    n, d, losses = along_budgets(CHINCHILLA, BUDGETS[:1])
    result = fit(SurfaceData.of(*(np.repeat(one[:5], 3) for one in (n, d, losses))))
    assert (result.status, result.surface) == ("too_few", None)
    minimum = surface_minimum(result, n, losses, 6e18, SIX_ND)
    assert (minimum.status, minimum.loss) == ("too_few", None)
    # With equal exponents there is an unknown less.
    n, d, losses = (column[[0, 4, 12, 20, 23]] for column in over_trained())
    held = fit(SurfaceData.of(n, d, losses), TOGETHER)
    assert held.surface.alpha == pytest.approx(TIED.alpha, rel=1e-4)
    few = fit(SurfaceData.of(n[:4], d[:4], losses[:4]), TOGETHER)
    assert few.message == "4 distinct pairs of size and tokens, 5 needed"
    assert (few.status, few.equal_exponents) == ("too_few", True)


@pytest.mark.parametrize(("shift", "side"), [(-4, "larger"), (4, "smaller")])
def test_minimum_outside_the_measured_sizes_is_refused(shift: int, side: str) -> None:
    n, d, losses = along_budgets(CHINCHILLA, BUDGETS, SIZES * 1.6**shift)
    fit = fit_variable_projection(SurfaceData.of(n, d, losses))
    minimum = surface_minimum(fit, n[:7], losses[:7], 6e18, SIX_ND)
    assert (minimum.status, minimum.loss, minimum.side) == ("edge", None, side)
    # Also where an inner size is lowest.
    inner = 1 if shift > 0 else 5
    losses[inner] = losses[:7].min() - 1e-3
    minimum = surface_minimum(fit, n[:7], losses[:7], 6e18, SIX_ND)
    assert (minimum.status, minimum.side) == ("edge", side)


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
def test_values_that_cannot_be_fitted_are_errors(bad: float) -> None:
    n, d, losses = along_budgets(CHINCHILLA, BUDGETS[:1])
    losses[2] = bad
    with pytest.raises(ValueError, match="must be positive and finite"):
        SurfaceData.of(n, d, losses)


# The objective's derivatives, and descents that keep to the directions they are given.
GENERATOR = np.random.default_rng(0)
N, D = np.exp(GENERATOR.uniform([[16], [20]], [[23], [27]], (2, 41)))
DATA = SurfaceData.of(*noisy(TRUE, N, D, 0.01))
NEAR = DATA.unknowns(TRUE)
AWAY = NEAR + np.array([0.02, -0.05, 0.04, 0.01, -0.02])
FREE, TIED_WAYS = DIRECTIONS[False], DIRECTIONS[True]


@pytest.mark.parametrize("delta", [None, 0.003, 0.5])
def test_derivatives_are_those_of_the_cost(delta) -> None:
    objective = SurfaceObjective(DATA, delta)
    cost, gradient, curvature = objective.expand(AWAY[None], exact=True)
    assert cost[0] == pytest.approx(objective.costs(AWAY[None])[0], rel=1e-14)
    step = 1e-6
    for one in range(5):
        both = AWAY + np.array([[step], [-step]]) * np.eye(5)[one]
        costs = objective.costs(both)
        # Rounding of the cost over the step, and the third derivative times its square.
        assert gradient[0, one] == pytest.approx((costs[0] - costs[1]) / 2 / step, abs=1e-5)
        slopes = objective.expand(both, exact=True)[1]
        change = (slopes[0] - slopes[1]) / 2 / step
        np.testing.assert_allclose(curvature[0, one], change, rtol=1e-5, atol=1e-3)
    # Reweighted curvature has no direction that falls.
    _, _, curvature = objective.expand(AWAY[None], exact=False)
    assert np.linalg.eigvalsh(curvature[0]).min() > 0


@pytest.mark.parametrize("exact", [False, True])
def test_many_descents_are_what_each_is_alone(exact: bool, monkeypatch) -> None:
    copies = DATA.losses * np.exp(0.01 * GENERATOR.standard_normal((7, 41)))

    def ends(losses: np.ndarray) -> np.ndarray:
        return descend(SurfaceObjective(DATA, 0.003, losses), NEAR, directions=FREE, exact=exact)

    alone = np.concatenate([ends(copy) for copy in copies])
    np.testing.assert_allclose(ends(copies), alone, rtol=1e-9)
    monkeypatch.setattr("isoflop.fit.surfaces.descent.LARGEST_ARRAY", 3 * 5 * 41)
    np.testing.assert_allclose(ends(copies), alone, rtol=1e-9)


def test_steps_keep_to_their_directions_and_end_where_these_do_not_fall() -> None:
    objective = SurfaceObjective(DATA, None)
    start = NEAR.copy()
    start[3:] = 0.35
    found = descend(objective, start, directions=TIED_WAYS, exact=True)[0]
    assert found[3] == found[4]
    found = stationary(objective, found, TIED_WAYS)
    assert found[3] == found[4]
    gradient = objective.expand(found[None], exact=True)[1][0]
    assert np.abs(gradient @ TIED_WAYS).max() < 1e-10
    assert np.abs(gradient).max() > 1e-3, "apart the exponents would go on"
