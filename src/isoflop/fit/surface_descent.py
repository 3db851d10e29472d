"""Many surfaces fitted side by side: starts of one fit, or noisy copies of its runs.

The descent is Levenberg's: Gauss-Newton steps on reweighted least squares, each surface with its
own damping.

Axes: R surfaces, P runs, K = 5 unknowns (log E, log A, log B, alpha, beta), with the coefficients
at N0 and D0. E = 0 is log E = -inf, and stays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.fit.minimum import Floats
from isoflop.fit.surface_data import EXPONENTS, SurfaceData

ITERATIONS = 300
CONVERGED = 1e-7
"""Relative fall of the objective in one accepted step below which a surface has arrived."""


def descend(
    data: SurfaceData,
    start: Floats,
    *,
    huber: bool,
    delta: float,
    losses: Floats | None = None,
) -> Floats:
    """Return the unknowns (R, K) that each descent arrives at.

    Args:
        data: the runs.
        start: unknowns to start from, (K,) or (R, K).
        huber: Huber on log loss; else least squares on the loss.
        delta: of the Huber loss.
        losses: other losses of the runs, (R, P).
    """
    given = data.losses[None] if losses is None else losses
    count = max(len(given), len(np.atleast_2d(start)))
    given = np.broadcast_to(given, (count, len(data.losses)))
    problem = _Objective(data, given, delta if huber else None)
    x = np.broadcast_to(start, (count, 5)).copy()
    damping = np.full(count, 1e-3)
    active = np.arange(count)
    cost, gradient, curvature = problem.expand(x, active)
    for _ in range(ITERATIONS):
        if not len(active):
            break
        diagonal = np.einsum("rkk->rk", curvature).copy()
        damped = curvature.copy()
        # An unknown that moves nothing, such as E at zero, stays where it is.
        floor = 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-300
        np.einsum("rkk->rk", damped)[:] += damping[active, None] * diagonal + floor
        trial = x[active] - np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial[:, 3:] = trial[:, 3:].clip(*EXPONENTS)
        new_cost, new_gradient, new_curvature = problem.expand(trial, active)
        better = new_cost < cost
        fall = np.where(better, cost - new_cost, 0) / np.maximum(cost, 1e-300)
        x[active[better]] = trial[better]
        cost = np.where(better, new_cost, cost)
        gradient = np.where(better[:, None], new_gradient, gradient)
        curvature = np.where(better[:, None, None], new_curvature, curvature)
        damping[active] *= np.where(better, 0.3, 4.0)
        going = ~((better & (fall < CONVERGED)) | (damping[active] > 1e8))
        active, cost = active[going], cost[going]
        gradient, curvature = gradient[going], curvature[going]
    return x


class _Objective:
    """Objective of many surfaces, with gradient and reweighted Gauss-Newton matrix."""

    def __init__(self, data: SurfaceData, losses: Floats, delta: float | None) -> None:
        self.data, self.losses, self.delta = data, losses, delta

    def expand(self, x: Floats, rows: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """Return cost (A), gradient (A, K) and curvature (A, K, K) at x (A, K) of rows (A)."""
        u, v = self.data.u, self.data.v
        losses = self.losses[rows]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            e = np.broadcast_to(np.exp(x[:, :1]), losses.shape)
            a = np.exp(x[:, 1:2] - x[:, 3:4] * u)
            b = np.exp(x[:, 2:3] - x[:, 4:5] * v)
            total = e + a + b
            jacobian = np.stack([e, a, b, -a * u, -b * v], axis=1)
            if self.delta is None:
                residual = total - losses
                part, share = residual**2 / 2, np.ones_like(total)
            else:
                residual = np.log(total / losses)
                size = np.abs(residual)
                inside = size <= self.delta
                part = np.where(inside, size**2 / (2 * self.delta), size - self.delta / 2)
                share = 1 / np.maximum(size, self.delta)
                jacobian /= total[:, None]
            cost = part.sum(axis=1)
            weighted = jacobian * share[:, None]
            gradient = np.einsum("rkp,rp->rk", weighted, residual)
            curvature = weighted @ jacobian.transpose(0, 2, 1)
        bad = ~(np.isfinite(cost) & np.isfinite(gradient).all(1))
        cost = np.where(bad, np.inf, cost)
        return cost, np.nan_to_num(gradient), np.nan_to_num(curvature)
