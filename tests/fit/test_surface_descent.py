"""The objective's derivatives, and descents that keep to the directions they are given."""

import numpy as np
import pytest

from isoflop.fit.surfaces.data import EQUAL_EXPONENTS, SurfaceData
from isoflop.fit.surfaces.descent import SurfaceObjective, descend, stationary
from isoflop.fit.surfaces.surface import Surface

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)
GENERATOR = np.random.default_rng(0)
N, D = np.exp(GENERATOR.uniform([[16], [20]], [[23], [27]], (2, 41)))
DATA = SurfaceData.of(N, D, TRUE.loss(N, D) * np.exp(0.01 * GENERATOR.standard_normal(41)))
NEAR = DATA.unknowns(TRUE)
AWAY = NEAR + np.array([0.02, -0.05, 0.04, 0.01, -0.02])


@pytest.mark.parametrize("delta", [None, 0.003, 0.5])
def test_derivatives_are_those_of_the_cost(delta) -> None:
    objective = SurfaceObjective(DATA, delta)
    cost, gradient, curvature = objective.expand(AWAY[None], exact=True)
    assert cost[0] == pytest.approx(objective.costs(AWAY[None])[0], rel=1e-14)
    step = 1e-6
    for one in range(5):
        ahead, behind = (AWAY + side * step * np.eye(5)[one] for side in (1, -1))
        costs = objective.costs(np.stack([ahead, behind]))
        # Rounding of the cost over the step, and the third derivative times its square.
        assert gradient[0, one] == pytest.approx((costs[0] - costs[1]) / 2 / step, abs=1e-5)
        slopes = objective.expand(np.stack([ahead, behind]), exact=True)[1]
        change = (slopes[0] - slopes[1]) / 2 / step
        np.testing.assert_allclose(curvature[0, one], change, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("delta", [None, 0.003])
def test_reweighted_curvature_has_no_direction_that_falls(delta) -> None:
    _, _, curvature = SurfaceObjective(DATA, delta).expand(AWAY[None], exact=False)
    assert np.linalg.eigvalsh(curvature[0]).min() > 0


@pytest.mark.parametrize("exact", [False, True])
def test_many_descents_are_what_each_is_alone(exact: bool, monkeypatch) -> None:
    copies = DATA.losses * np.exp(0.01 * GENERATOR.standard_normal((7, 41)))
    together = descend(
        SurfaceObjective(DATA, 0.003, copies), NEAR, directions=np.eye(5), exact=exact
    )
    monkeypatch.setattr("isoflop.fit.surfaces.descent.LARGEST_ARRAY", 3 * 5 * 41)
    batches = descend(
        SurfaceObjective(DATA, 0.003, copies), NEAR, directions=np.eye(5), exact=exact
    )
    for row, batch, copy in zip(together, batches, copies, strict=True):
        alone = descend(
            SurfaceObjective(DATA, 0.003, copy), NEAR, directions=np.eye(5), exact=exact
        )[0]
        np.testing.assert_allclose(row, alone, rtol=1e-9)
        np.testing.assert_allclose(batch, alone, rtol=1e-9)


def test_steps_keep_to_their_directions_and_end_where_these_do_not_fall() -> None:
    objective = SurfaceObjective(DATA, None)
    start = NEAR.copy()
    start[3:] = 0.35
    found = descend(objective, start, directions=EQUAL_EXPONENTS, exact=True)[0]
    assert found[3] == found[4]
    found = stationary(objective, found, EQUAL_EXPONENTS)
    assert found[3] == found[4]
    gradient = objective.expand(found[None], exact=True)[1][0]
    assert np.abs(gradient @ EQUAL_EXPONENTS).max() < 1e-10
    assert np.abs(gradient).max() > 1e-3, "apart the exponents would go on"


def test_a_term_that_is_zero_stays_so() -> None:
    start = NEAR.copy()
    start[0] = -np.inf
    found = descend(SurfaceObjective(DATA, 0.003), start, directions=np.eye(5))[0]
    assert found[0] == -np.inf
    assert np.isfinite(found[1:]).all()
