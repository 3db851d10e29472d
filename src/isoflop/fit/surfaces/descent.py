"""Many surfaces fitted side by side: starts of one fit, noisy copies of its runs, held unknowns.

The descent is Levenberg's, each surface with its own damping. Its steps are Gauss-Newton's on
reweighted least squares, which arrive from afar, or Newton's, which arrive exactly.

Axes: R surfaces, A of them, P runs, K = 5 unknowns (log E, log A, log B, alpha, beta), with the
coefficients at N0 and D0, F directions that these may move in. E = 0 is log E = -inf, and stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.fit.intervals import Floats
from isoflop.fit.surfaces.data import EXPONENTS, SurfaceData

ITERATIONS = 300
CONVERGED = 1e-7
"""Relative fall of the objective in one accepted step below which a surface has arrived."""
LAST_STEPS = 5
STOPPED = 1e8
"""Damping above which no step is left to try."""
LARGEST_ARRAY = 200_000
"""Numbers in one array (A, K, P); more surfaces go in several batches, which stay in the cache."""


class SurfaceObjective:
    """What surfaces are fitted by, with derivatives: Huber on log loss, or least squares.

    The Huber loss is over its delta, summed over runs. Least squares are half the sum of squares of
    fitted less measured loss.

    Args:
        data: the runs.
        delta: of the Huber loss on log loss; None for least squares on the loss.
        losses: other losses of the runs, one row per surface or one for all, (R or 1, P).
    """

    def __init__(
        self, data: SurfaceData, delta: float | None, losses: Floats | None = None
    ) -> None:
        self.data, self.delta = data, delta
        given = data.losses[None] if losses is None else np.atleast_2d(losses)
        self.target = given if delta is None else np.log(given)

    def of(self, rows: NDArray[np.intp]) -> SurfaceObjective:
        """Return the objective of some of the surfaces."""
        if len(self.target) == 1:
            return self
        some = object.__new__(SurfaceObjective)
        some.data, some.delta, some.target = self.data, self.delta, self.target[rows]
        return some

    def costs(self, x: Floats) -> Floats:
        """Return the objective (A,) at x (A, K)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            _, _, _, residual = self._residuals(x)
            cost = self._cost(residual, self._slope(residual))
        return np.where(np.isfinite(cost), cost, np.inf)

    def expand(self, x: Floats, *, exact: bool) -> tuple[Floats, Floats, Floats]:
        """Return cost (A), gradient (A, K) and curvature (A, K, K) at x (A, K).

        The curvature is the objective's own where it is to be exact, else that of reweighted
        least squares, which has no direction that falls.
        """
        u, v = self.data.u, self.data.v
        jacobian = np.empty((len(x), 5, len(u)))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            e, a, b, residual = self._residuals(x)
            slope = self._slope(residual)
            cost = self._cost(residual, slope)
            jacobian[:, 0], jacobian[:, 1], jacobian[:, 2] = e, a, b
            if self.delta is not None:
                jacobian[:, :3] /= (e + a + b)[:, None]
            np.multiply(jacobian[:, 1], -u, out=jacobian[:, 3])
            np.multiply(jacobian[:, 2], -v, out=jacobian[:, 4])
            gradient = (jacobian @ slope[..., None])[..., 0]
            weight = self._weight(residual, slope, exact=exact)
            weighted = jacobian if weight is None else jacobian * weight[:, None]
            curvature = weighted @ jacobian.transpose(0, 2, 1)
            if exact:
                self._bend(curvature, gradient, jacobian, slope)
        bad = ~(np.isfinite(cost) & np.isfinite(gradient).all(1))
        if bad.any() or not np.isfinite(curvature).all():
            gradient, curvature = np.nan_to_num(gradient), np.nan_to_num(curvature)
        return np.where(bad, np.inf, cost), gradient, curvature

    def residuals(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the residuals (P,) at x (K,), and the objective's slope in each."""
        residual = self._residuals(x[None])[3][0]
        return residual, self._slope(residual)

    def _residuals(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return the terms E (A, 1), A and B (A, P), and the residuals (A, P)."""
        e = np.exp(x[:, :1])
        a = np.exp(x[:, 1:2] - x[:, 3:4] * self.data.u)
        b = np.exp(x[:, 2:3] - x[:, 4:5] * self.data.v)
        total = e + a + b
        return e, a, b, (total if self.delta is None else np.log(total)) - self.target

    def _slope(self, residual: Floats) -> Floats:
        return residual if self.delta is None else np.clip(residual / self.delta, -1, 1)

    def _cost(self, residual: Floats, slope: Floats) -> Floats:
        if self.delta is None:
            return np.asarray(np.einsum("rp,rp->r", residual, residual) / 2)
        return np.asarray(np.einsum("rp,rp->r", slope, residual - self.delta / 2 * slope))

    def _weight(self, residual: Floats, slope: Floats, *, exact: bool) -> Floats | None:
        """Return what each run's outer product counts in the curvature, None for one each."""
        if self.delta is None:
            return None
        size = np.abs(residual)
        if exact:
            return (size <= self.delta) / self.delta - slope
        return 1 / np.maximum(size, self.delta)

    def _bend(self, curvature: Floats, gradient: Floats, jacobian: Floats, slope: Floats) -> None:
        """Add what the terms' own second derivatives are; a term is the exponential of a line."""
        for one in range(3):
            curvature[:, one, one] += gradient[:, one]
        for term, power, log in ((1, 3, self.data.u), (2, 4, self.data.v)):
            curvature[:, term, power] += gradient[:, power]
            curvature[:, power, term] += gradient[:, power]
            curvature[:, power, power] -= (jacobian[:, power] * slope) @ log


def descend(
    objective: SurfaceObjective,
    start: Floats,
    *,
    directions: Floats | None = None,
    exact: bool = False,
    converged: float = CONVERGED,
    bounds: tuple[float, float] | None = EXPONENTS,
) -> Floats:
    """Return the unknowns (R, K) that each descent arrives at.

    Args:
        objective: what is to be lowered.
        start: unknowns to start from, (K,) or (R, K).
        directions: steps are sums of these columns, (K, F) or (R, K, F); each unknown if left out.
        exact: whether steps are Newton's; for starts near the lowest point.
        converged: as `CONVERGED`.
        bounds: of both exponents.
    """
    count = max(len(objective.target), len(np.atleast_2d(start)))
    whole = np.broadcast_to(start, (count, 5)).copy()
    ways = np.eye(5) if directions is None else directions
    step = max(1, LARGEST_ARRAY // (5 * len(objective.data.u)))
    for at in range(0, count, step):
        rows = np.arange(at, min(count, at + step))
        some = ways if ways.ndim == 2 else ways[rows]
        whole[rows] = _descend(objective.of(rows), whole[rows], some, exact, converged, bounds)
    return whole


def stationary(objective: SurfaceObjective, x: Floats, directions: Floats) -> Floats:
    """Return x (K,) after Newton's steps that lower the gradient, where costs no longer tell."""
    _, gradient, curvature = objective.expand(x[None], exact=True)
    for _ in range(LAST_STEPS):
        slope, bend = gradient[0] @ directions, directions.T @ curvature[0] @ directions
        step = np.linalg.lstsq(bend, slope, rcond=None)[0]
        trial = x - directions @ step
        _, gradient, curvature = objective.expand(trial[None], exact=True)
        if not np.abs(gradient[0] @ directions).max() < np.abs(slope).max():
            break
        x = trial
    return x


def _descend(
    objective: SurfaceObjective,
    x: Floats,
    ways: Floats,
    exact: bool,
    converged: float,
    bounds: tuple[float, float] | None,
) -> Floats:
    damping = np.full(len(x), 1e-3)
    active = np.arange(len(x))
    ways = np.broadcast_to(ways, (len(x), *ways.shape[-2:]))
    cost, gradient, curvature = objective.expand(x, exact=exact)
    for _ in range(ITERATIONS):
        if not len(active):
            break
        way = ways[active]
        turned = way.transpose(0, 2, 1)
        slope = turned @ gradient[..., None]
        damped = turned @ curvature @ way
        diagonal = np.einsum("rkk->rk", damped)
        size = np.abs(diagonal)
        # An unknown that moves nothing, such as E at zero, stays where it is.
        floor = 1e-9 * size.max(axis=1, keepdims=True) + 1e-300
        diagonal += damping[active, None] * size + floor
        step = np.linalg.solve(damped, slope)
        trial = x[active] - (way @ step)[..., 0]
        if bounds is not None:
            trial[:, 3:] = trial[:, 3:].clip(*bounds)
        new_cost, new_gradient, new_curvature = objective.of(active).expand(trial, exact=exact)
        better = new_cost < cost
        fall = np.where(better, cost - new_cost, 0) / np.maximum(cost, 1e-300)
        x[active[better]] = trial[better]
        cost = np.where(better, new_cost, cost)
        gradient = np.where(better[:, None], new_gradient, gradient)
        curvature = np.where(better[:, None, None], new_curvature, curvature)
        damping[active] *= np.where(better, 0.3, 4.0)
        going = ~((better & (fall < converged)) | (damping[active] > STOPPED))
        active, cost = active[going], cost[going]
        gradient, curvature = gradient[going], curvature[going]
    return x
