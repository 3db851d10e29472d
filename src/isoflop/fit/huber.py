"""Approach 3 of arXiv 2203.15556: the loss surface by Huber loss on the log of the loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from isoflop.fit.minimum import Floats
from isoflop.fit.projection import fit_variable_projection
from isoflop.fit.surface import SurfaceFit
from isoflop.fit.surface_data import (
    EXPONENTS,
    SURFACE_POINTS,
    SurfaceData,
    checked_runs,
    distinct_pairs,
    judged,
    too_few_pairs,
)

HUBER_DELTA = 1e-3


def fit_huber(
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    delta: float = HUBER_DELTA,
    starts: int = 8,
) -> SurfaceFit:
    """Fit the surface by Huber loss on log fitted - log measured loss (approach 3).

    The objective is evaluated on the whole grid of starts, and descended from the best few and
    from variable projection's answer with exact gradient and curvature: the published optimiser
    had stopped early (arXiv 2404.10102).

    Args:
        parameters: N of each run.
        tokens: D of each run.
        losses: nats per token of each run.
        delta: residual of log loss above which a run counts linearly.
        starts: how many of the best grid points are descended from.

    Raises:
        ValueError: lengths differ, or a value is not positive and finite.
    """
    data = checked_runs(parameters, tokens, losses)
    if distinct_pairs(data) < SURFACE_POINTS:
        return too_few_pairs("surface", data)
    target = np.log(data.losses)
    problem = _HuberProblem(data, target, delta)

    # Log terms at N0, D0 are of the size of the log loss, so the grid spans what is plausible.
    middle = float(target.mean())
    levels = middle + np.array([-3.0, -1.5, -0.7, -0.2])
    exponents = (0.1, 0.3, 0.6, 1.0, 2.0)
    points = [
        np.array(point) for point in itertools.product(levels, levels, levels, exponents, exponents)
    ]
    points.sort(key=problem.value)
    chosen = points[:starts]
    projected = fit_variable_projection(parameters, tokens, losses)
    if projected.surface is not None and projected.status != "at_bound":
        s = projected.surface
        chosen.append(
            np.array(
                [
                    math.log(s.E),
                    math.log(s.A) - s.alpha * data.log_n0,
                    math.log(s.B) - s.beta * data.log_d0,
                    s.alpha,
                    s.beta,
                ]
            )
        )
    found = [
        minimize(
            problem.value,
            start,
            jac=problem.gradient,
            hess=problem.hessian,
            method="trust-exact",
            options={"gtol": 1e-13, "maxiter": 2000},
        )
        for start in chosen
    ]
    best = min(found, key=lambda one: float(one.fun))
    e, a, b, alpha, beta = (float(value) for value in best.x)
    if not all(EXPONENTS[0] <= value <= EXPONENTS[1] for value in (alpha, beta)):
        return SurfaceFit(
            estimator="surface",
            status="at_bound",
            points=len(data.losses),
            message=f"alpha and beta ran to {alpha:.3g} and {beta:.3g}, outside "
            f"{EXPONENTS[0]} to {EXPONENTS[1]}",
        )
    settled = float(np.abs(problem.gradient(best.x)).max()) < 1e-6
    surface = data.surface(math.exp(e), math.exp(a), math.exp(b), alpha, beta)
    return judged("surface", data, surface, settled)


class _HuberProblem:
    """Mean Huber loss over delta, and its derivatives, at (log E, log A, log B, alpha, beta)."""

    def __init__(self, data: SurfaceData, target: Floats, delta: float) -> None:
        zeros = np.zeros_like(data.u)
        ones = zeros + 1
        # The log of each term is linear in the five unknowns: (points, terms, unknowns).
        self.features = np.stack(
            [
                np.stack([ones, zeros, zeros, zeros, zeros], 1),
                np.stack([zeros, ones, zeros, -data.u, zeros], 1),
                np.stack([zeros, zeros, ones, zeros, -data.v], 1),
            ],
            1,
        )
        self.target = target
        self.delta = delta

    def _parts(self, x: Floats) -> tuple[Floats, Floats]:
        logs = self.features @ x
        top = logs.max(axis=1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(logs - top).sum(axis=1))
        return total - self.target, np.exp(logs - total[:, None])

    def value(self, x: Floats) -> float:
        size = np.abs(self._parts(x)[0])
        small = size <= self.delta
        cost = np.where(small, size**2 / (2 * self.delta), size - self.delta / 2)
        return float(cost.mean())

    def gradient(self, x: Floats) -> Floats:
        residual, shares = self._parts(x)
        slope = np.clip(residual / self.delta, -1, 1)
        jacobian = np.einsum("pt,ptk->pk", shares, self.features)
        return np.asarray(slope @ jacobian / len(residual))

    def hessian(self, x: Floats) -> Floats:
        residual, shares = self._parts(x)
        slope = np.clip(residual / self.delta, -1, 1)
        inside = (np.abs(residual) <= self.delta) / self.delta
        jacobian = np.einsum("pt,ptk->pk", shares, self.features)
        spread = np.einsum("p,pt,ptk,ptl->kl", slope, shares, self.features, self.features)
        outer = np.einsum("p,pk,pl->kl", inside - slope, jacobian, jacobian)
        return np.asarray((spread + outer) / len(residual))
