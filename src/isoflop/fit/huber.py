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
    thinned,
    too_few_pairs,
)
from isoflop.fit.surface_descent import descend

HUBER_DELTA = 1e-3
START_LEVELS = (-3.0, -1.5, -0.7, -0.2)
"""Logs of the terms E, A and B at the mean size and tokens, less the mean log loss."""
START_EXPONENTS = (0.1, 0.3, 0.6, 1.0, 2.0)
"""The grid of starts is every combination of three levels and two exponents."""
STARTS = 32
NEWTON_STEPS = 2000
SETTLED = 1e-6
"""Gradient of the mean Huber loss over delta, of order one far from a minimum, that counts as
zero."""


def fit_huber(
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    delta: float = HUBER_DELTA,
    starts: int = STARTS,
) -> SurfaceFit:
    """Fit the surface by Huber loss on log fitted - log measured loss (approach 3).

    The objective is evaluated on the whole grid of starts and descended from the best of them and
    from variable projection's answer; the lowest point is followed to the end with exact gradient
    and curvature: the published optimiser had stopped early (arXiv 2404.10102).

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
    # Log terms at N0, D0 are of the size of the log loss, so the grid spans what is plausible.
    middle = float(np.log(data.losses).mean())
    levels = middle + np.array(START_LEVELS)
    points = [
        np.array(point)
        for point in itertools.product(levels, levels, levels, START_EXPONENTS, START_EXPONENTS)
    ]
    problem, rough = _HuberProblem(data, delta), thinned(data)
    points.sort(key=_HuberProblem(rough, delta).value)
    projected = fit_variable_projection(parameters, tokens, losses)
    known = _unknowns(projected, data)
    chosen = np.stack(points[:starts] if known is None else [*points[:starts], known])
    best = _newton(problem, _lowest(rough, chosen, delta))

    # E = 0 is at minus infinity in log E, where no descent arrives: it is tried on its own.
    floorless = _HuberProblem(data, delta, floor=False)
    chosen[:, 0] = -math.inf
    without = _newton(floorless, _lowest(rough, chosen, delta)[1:])
    if floorless.value(without) <= problem.value(best):
        problem, e, (a, b, alpha, beta) = floorless, 0.0, without.tolist()
        settled = problem.settled(without)
    else:
        log_e, a, b, alpha, beta = best.tolist()
        e, settled = math.exp(log_e), problem.settled(best)
    if not all(EXPONENTS[0] <= value <= EXPONENTS[1] for value in (alpha, beta)):
        return SurfaceFit(
            estimator="surface",
            status="at_bound",
            points=len(data.losses),
            message=f"alpha and beta ran to {alpha:.3g} and {beta:.3g}, outside "
            f"{EXPONENTS[0]} to {EXPONENTS[1]}",
        )
    surface = data.surface(e, math.exp(a), math.exp(b), alpha, beta)
    return judged("surface", data, surface, settled)


def _lowest(data: SurfaceData, starts: Floats, delta: float) -> Floats:
    """Return the lowest of the points that descents from `starts` (S, 5) arrive at."""
    found = descend(data, starts, huber=True, delta=delta)
    floor = bool(np.isfinite(starts[0, 0]))
    problem = _HuberProblem(data, delta, floor=floor)
    costs = [problem.value(point if floor else point[1:]) for point in found]
    return np.asarray(found[int(np.argmin(costs))])


def _newton(problem: _HuberProblem, start: Floats) -> Floats:
    found = minimize(
        problem.value,
        start,
        jac=problem.gradient,
        hess=problem.hessian,
        method="trust-exact",
        options={"gtol": 1e-13, "maxiter": NEWTON_STEPS},
    )
    return np.asarray(found.x, dtype=np.float64)


def _unknowns(fit: SurfaceFit, data: SurfaceData) -> Floats | None:
    """Return a surface as the unknowns of the problem; None where a log does not exist."""
    s = fit.surface
    if s is None or min(s.E, s.A, s.B) <= 0:
        return None
    a = math.log(s.A) - s.alpha * data.log_n0
    b = math.log(s.B) - s.beta * data.log_d0
    return np.array([math.log(s.E), a, b, s.alpha, s.beta])


class _HuberProblem:
    """Mean Huber loss over delta, and its derivatives, at (log E, log A, log B, alpha, beta).

    Coefficients are those at N0 and D0. Without a floor the term E and its unknown are absent.
    """

    def __init__(self, data: SurfaceData, delta: float, *, floor: bool = True) -> None:
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
        if not floor:
            self.features = self.features[:, 1:, 1:]
        self.target = np.log(data.losses)
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

    def settled(self, x: Floats) -> bool:
        return bool(np.abs(self.gradient(x)).max() < SETTLED)

    def hessian(self, x: Floats) -> Floats:
        residual, shares = self._parts(x)
        slope = np.clip(residual / self.delta, -1, 1)
        inside = (np.abs(residual) <= self.delta) / self.delta
        jacobian = np.einsum("pt,ptk->pk", shares, self.features)
        spread = np.einsum("p,pt,ptk,ptl->kl", slope, shares, self.features, self.features)
        outer = np.einsum("p,pk,pl->kl", inside - slope, jacobian, jacobian)
        return np.asarray((spread + outer) / len(residual))
