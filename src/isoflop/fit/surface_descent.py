"""Many surfaces fitted side by side: starts of one fit, or resamples of its runs.

The descent is Levenberg's: Gauss-Newton steps on reweighted least squares, each surface with its
own damping.

Axes: R surfaces, P runs, K = 5 unknowns (log E, log A, log B, alpha, beta), with the coefficients
at N0 and D0. E = 0 is log E = -inf, and stays.
"""

from __future__ import annotations

import numpy as np

from isoflop.fit.minimum import Floats
from isoflop.fit.surface_data import EXPONENTS, SurfaceData

ITERATIONS = 300
CONVERGED = 1e-7
"""Relative fall of the objective in one accepted step below which a surface has arrived."""


def descend(
    data: SurfaceData, start: Floats, weights: Floats, *, huber: bool, delta: float
) -> Floats:
    """Return the unknowns (R, K) that each descent arrives at.

    Args:
        data: the runs.
        start: unknowns to start from, (K,) or (R, K).
        weights: how often each run counts, (R, P).
        huber: Huber on log loss; else least squares on the loss.
        delta: of the Huber loss.
    """
    problem = _Objective(data, huber, delta)
    x = np.broadcast_to(start, (len(weights), 5)).copy()
    damping = np.full(len(weights), 1e-3)
    active = np.arange(len(weights))
    cost, gradient, curvature = problem.expand(x, weights)
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
        new_cost, new_gradient, new_curvature = problem.expand(trial, weights[active])
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

    def __init__(self, data: SurfaceData, huber: bool, delta: float) -> None:
        self.data, self.huber, self.delta = data, huber, delta
        self.log_losses = np.log(data.losses)

    def expand(self, x: Floats, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Return cost (R), gradient (R, K) and curvature (R, K, K) at x (R, K)."""
        u, v = self.data.u, self.data.v
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            e = np.broadcast_to(np.exp(x[:, :1]), (len(x), len(u)))
            a = np.exp(x[:, 1:2] - x[:, 3:4] * u)
            b = np.exp(x[:, 2:3] - x[:, 4:5] * v)
            total = e + a + b
            if self.huber:
                residual = np.log(total) - self.log_losses
                size = np.abs(residual)
                inside = size <= self.delta
                part = np.where(inside, size**2 / (2 * self.delta), size - self.delta / 2)
                share = weights / np.maximum(size, self.delta)
                scale = 1 / total
            else:
                residual = total - self.data.losses
                part = residual**2 / 2
                share = weights
                scale = np.ones_like(total)
            cost = np.einsum("rp,rp->r", weights, part)
            jacobian = np.stack([e, a, b, -a * u, -b * v], axis=1) * scale[:, None]
            weighted = jacobian * share[:, None]
            gradient = np.einsum("rkp,rp->rk", weighted, residual)
            curvature = weighted @ jacobian.transpose(0, 2, 1)
        bad = ~(np.isfinite(cost) & np.isfinite(gradient).all(1))
        cost = np.where(bad, np.inf, cost)
        return cost, np.nan_to_num(gradient), np.nan_to_num(curvature)
