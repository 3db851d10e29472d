"""Many surfaces fitted side by side: starts of one fit, noisy copies of its runs, held unknowns.

The descent is Levenberg's, each surface with its own damping. Its steps are Gauss-Newton's on
reweighted least squares, which arrive from afar, or Newton's, which arrive exactly.

Axes: R surfaces, A of them, P runs, K = 5 unknowns (log E, log A, log B, alpha, beta), with the
coefficients at N0 and D0, F directions that these may move in. E = 0 is log E = -inf, and stays.
"""

from __future__ import annotations

from copy import copy

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

    The Huber loss is over its delta, summed over runs. Least squares, for a delta of None, are half
    the sum of squares of fitted less measured loss. Other losses of the runs are one row per
    surface or one for all, (R or 1, P).
    """

    def __init__(
        self, data: SurfaceData, delta: float | None, losses: Floats | None = None
    ) -> None:
        self.data, self.delta = data, delta
        given = np.atleast_2d(data.losses if losses is None else losses)
        self.target = given if delta is None else np.log(given)

    def of(self, rows: NDArray[np.intp]) -> SurfaceObjective:
        """Return the objective of some of the surfaces."""
        some = copy(self)
        if len(self.target) > 1:
            some.target = self.target[rows]
        return some

    def costs(self, x: Floats) -> Floats:
        """Return the objective (A,) at x (A, K)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            cost = self.at(x)[-1]
        return np.where(np.isfinite(cost), cost, np.inf)

    def at(self, x: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        """Return E (A, 1), A, B, residuals and slopes (A, P), and costs (A,), at x (A, K)."""
        e = np.exp(x[:, :1])
        a = np.exp(x[:, 1:2] - x[:, 3:4] * self.data.u)
        b = np.exp(x[:, 2:3] - x[:, 4:5] * self.data.v)
        total = e + a + b
        if self.delta is None:
            residual = total - self.target
            return e, a, b, residual, residual, np.einsum("rp,rp->r", residual, residual) / 2
        residual = np.log(total) - self.target
        slope = np.clip(residual / self.delta, -1, 1)
        cost = np.einsum("rp,rp->r", slope, residual - self.delta / 2 * slope)
        return e, a, b, residual, slope, cost

    def expand(self, x: Floats, *, exact: bool) -> tuple[Floats, Floats, Floats]:
        """Return cost (A), gradient (A, K) and curvature (A, K, K) at x (A, K).

        The curvature is the objective's own where it is to be exact, else that of reweighted
        least squares, which has no direction that falls.
        """
        u, v = self.data.u, self.data.v
        jacobian = np.empty((len(x), 5, len(u)))
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            e, a, b, residual, slope, cost = self.at(x)
            jacobian[:, 0], jacobian[:, 1], jacobian[:, 2] = e, a, b
            if self.delta is not None:
                jacobian[:, :3] /= (e + a + b)[:, None]
            np.multiply(jacobian[:, 1], -u, out=jacobian[:, 3])
            np.multiply(jacobian[:, 2], -v, out=jacobian[:, 4])
            gradient = (jacobian @ slope[..., None])[..., 0]
            weighted, size = jacobian, np.abs(residual)
            if self.delta is not None and exact:
                weighted = jacobian * ((size <= self.delta) / self.delta - slope)[:, None]
            elif self.delta is not None:
                weighted = jacobian * (1 / np.maximum(size, self.delta))[:, None]
            curvature = weighted @ jacobian.transpose(0, 2, 1)
            if exact:
                # A term is the exponential of a line, so that its second derivatives are terms.
                for one in range(3):
                    curvature[:, one, one] += gradient[:, one]
                for term, power, log in ((1, 3, u), (2, 4, v)):
                    curvature[:, term, power] += gradient[:, power]
                    curvature[:, power, term] += gradient[:, power]
                    curvature[:, power, power] -= (jacobian[:, power] * slope) @ log
        bad = ~(np.isfinite(cost) & np.isfinite(gradient).all(1))
        if bad.any() or not np.isfinite(curvature).all():
            gradient, curvature = np.nan_to_num(gradient), np.nan_to_num(curvature)
        return np.where(bad, np.inf, cost), gradient, curvature


def descend(
    objective: SurfaceObjective,
    start: Floats,
    *,
    directions: Floats,
    exact: bool = False,
    converged: float = CONVERGED,
    bounds: tuple[float, float] = EXPONENTS,
) -> Floats:
    """Return the unknowns (R, K) that each descent from a start, (K,) or (R, K), arrives at.

    Steps are sums of the columns of `directions`, (K, F) or (R, K, F), and Newton's where they are
    `exact`: for starts near the lowest point. `bounds` are those of both exponents.
    """
    count = max(len(objective.target), len(np.atleast_2d(start)))
    whole = np.broadcast_to(start, (count, 5)).copy()
    ways = np.broadcast_to(directions, (count, *directions.shape[-2:]))
    step = max(1, LARGEST_ARRAY // (5 * len(objective.data.u)))
    for first in range(0, count, step):
        rows = np.arange(first, min(count, first + step))
        x, way, own = whole[rows], ways[rows], objective.of(rows)
        damping = np.full(len(rows), 1e-3)
        cost, gradient, curvature = own.expand(x, exact=exact)
        for _ in range(ITERATIONS):
            if not len(rows):
                break
            turned = way.transpose(0, 2, 1)
            damped = turned @ curvature @ way
            diagonal = np.einsum("rkk->rk", damped)
            size = np.abs(diagonal)
            # An unknown that moves nothing, such as E at zero, stays where it is.
            floor = 1e-9 * size.max(axis=1, keepdims=True) + 1e-300
            diagonal += damping[:, None] * size + floor
            trial = x - (way @ np.linalg.solve(damped, turned @ gradient[..., None]))[..., 0]
            trial[:, 3:] = trial[:, 3:].clip(*bounds)
            tried = own.expand(trial, exact=exact)
            better = tried[0] < cost
            fall = np.where(better, cost - tried[0], 0) / np.maximum(cost, 1e-300)
            x, cost, gradient, curvature = (
                np.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip((trial, *tried), (x, cost, gradient, curvature), strict=True)
            )
            damping *= np.where(better, 0.3, 4.0)
            whole[rows] = x
            going = ~((better & (fall < converged)) | (damping > STOPPED))
            rows, own = rows[going], own.of(np.flatnonzero(going))
            x, way, damping, cost, gradient, curvature = (
                one[going] for one in (x, way, damping, cost, gradient, curvature)
            )
    return whole


def stationary(objective: SurfaceObjective, x: Floats, directions: Floats) -> Floats:
    """Return x (K,) after Newton's steps that lower the gradient, where costs no longer tell."""
    _, gradient, curvature = objective.expand(x[None], exact=True)
    for _ in range(LAST_STEPS):
        slope, bend = gradient[0] @ directions, directions.T @ curvature[0] @ directions
        trial = x - directions @ np.linalg.lstsq(bend, slope, rcond=None)[0]
        _, gradient, curvature = objective.expand(trial[None], exact=True)
        if not np.abs(gradient[0] @ directions).max() < np.abs(slope).max():
            break
        x = trial
    return x
