"""Profile likelihood of the loss surface: one unknown is held, the others are fitted again.

For least squares the Gaussian likelihood ratio decides how far a profile may rise (an F
threshold). For Huber the ratio of its objectives has the same limit once scaled by
E[psi^2] / E[psi'] (Ronchetti 1982), which the residuals tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.optimize import brentq, minimize

from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.interval import LEVEL, Interval
from isoflop.fit.minimum import Floats
from isoflop.fit.surface import SurfaceFit
from isoflop.fit.surface_data import SurfaceData, checked_runs
from isoflop.fit.surface_errors import within

UNKNOWNS = ("E", "A", "B", "alpha", "beta")
WIDENINGS = 40
"""Steps outward, each a fifth longer than the last, before an end counts as not found."""


def profile_intervals(
    fit: SurfaceFit,
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    delta: float = HUBER_DELTA,
    level: float = LEVEL,
) -> Mapping[str, Interval]:
    """Return the profile interval of each of `UNKNOWNS`.

    An end that the runs do not bound is infinite, or zero for what cannot be negative.

    Args:
        fit: the surface through all runs.
        parameters: N of each run.
        tokens: D of each run.
        losses: nats per token of each run.
        delta: of the Huber loss, where the fit is by it.
        level: probability that the intervals are to hold.

    Raises:
        ValueError: there is no surface, no run is left over after five unknowns, or a term of the
            surface is zero, so that the profile has no start.
    """
    data = checked_runs(parameters, tokens, losses)
    s = fit.surface
    free = len(data.losses) - len(UNKNOWNS)
    if s is None:
        raise ValueError(f"there is no surface to profile: {fit.message}")
    if free < 1:
        raise ValueError(f"{len(data.losses)} runs leave nothing over after five unknowns")
    if min(s.E, s.A, s.B) <= 0:
        raise ValueError("a term of the surface is zero, so its profile has no start")
    huber = fit.estimator == "surface"
    found = {}
    for held, name in enumerate(UNKNOWNS):
        # A and B are profiled as they are quoted, at N = 1 and D = 1: the data is not centred.
        problem = _Profile(data, huber, delta, s.model_dump(), held)
        limit = problem.limit(level, free)
        ends = [problem.end(direction, limit) for direction in (-1.0, 1.0)]
        at = math.exp if name in "EAB" else float
        low, high = (at(end) if math.isfinite(end) else end for end in ends)
        found[name] = Interval(
            value=getattr(s, name), low=0.0 if low == -math.inf else low, high=high, level=level
        )
    return found


class _Profile:
    """The objective with one unknown held; unknowns are (log E, log A, log B, alpha, beta)."""

    def __init__(
        self,
        data: SurfaceData,
        huber: bool,
        delta: float,
        surface: Mapping[str, float],
        held: int,
    ) -> None:
        self.data, self.huber, self.delta, self.held = data, huber, delta, held
        self.best = np.array(
            [math.log(surface[name]) if name in "EAB" else surface[name] for name in UNKNOWNS]
        )
        self.lowest = self._cost(self._centred(self.best))[0]

    def limit(self, level: float, free: int) -> float:
        """Return the objective up to which a profile lies within the interval."""
        residual = self._residual(self._centred(self.best))[0]
        if not self.huber:
            return self.lowest * (1 + float(stats.f.ppf(level, 1, free)) / free)
        slope = np.clip(residual / self.delta, -1, 1)
        curvature = float(within(residual, self.delta).mean()) / self.delta
        # Slopes at the fit are smaller than at the truth, by what five unknowns took up.
        scale = float(np.sum(slope**2)) / free / curvature
        return self.lowest + 0.5 * scale * float(stats.f.ppf(level, 1, free))

    def end(self, direction: float, limit: float) -> float:
        """Return where the profile crosses the limit on one side; infinite if it does not."""
        centre = float(self.best[self.held])
        step = direction * max(1e-3, 0.01 * abs(centre))
        others = np.delete(self._centred(self.best), self.held)
        inside, at = centre, centre
        for _ in range(WIDENINGS):
            at += step
            step *= 1.2
            cost, others = self._held_cost(at, others)
            if cost > limit:
                break
            inside = at
        else:
            return direction * math.inf
        start = others

        def above(value: float) -> float:
            return self._held_cost(value, start)[0] - limit

        low, high = sorted((inside, at))
        if above(low) * above(high) > 0:
            return at
        return float(brentq(above, low, high, xtol=1e-6 * max(1.0, abs(at))))

    def _centred(self, x: Floats) -> Floats:
        """Return the unknowns with A and B at N0 and D0, which the optimiser works in."""
        moved = x.copy()
        moved[1] -= x[3] * self.data.log_n0
        moved[2] -= x[4] * self.data.log_d0
        return moved

    def _held_cost(self, value: float, others: Floats) -> tuple[float, Floats]:
        def objective(rest: Floats) -> tuple[float, Floats]:
            x, jacobian = self._placed(value, rest)
            cost, gradient = self._cost(x)
            return cost, gradient @ jacobian

        # A line search may look where terms overflow; it turns back from an infinite cost.
        with np.errstate(all="ignore"):
            found = minimize(
                objective, others, jac=True, method="BFGS", options={"gtol": 1e-9, "maxiter": 500}
            )
        return float(found.fun), np.asarray(found.x)

    def _placed(self, value: float, rest: Floats) -> tuple[Floats, Floats]:
        """Return the centred unknowns for a held value, and their derivative in the rest."""
        x = np.insert(rest, self.held, value)
        jacobian = np.delete(np.eye(5), self.held, axis=1)
        if self.held == 1:
            x[1] = value - x[3] * self.data.log_n0
            jacobian[1, 2] = -self.data.log_n0
        elif self.held == 2:
            x[2] = value - x[4] * self.data.log_d0
            jacobian[2, 3] = -self.data.log_d0
        return x, jacobian

    def _residual(self, x: Floats) -> tuple[Floats, Floats]:
        u, v = self.data.u, self.data.v
        with np.errstate(all="ignore"):
            terms = np.stack(
                [
                    np.full_like(u, np.exp(x[0])),
                    np.exp(x[1] - x[3] * u),
                    np.exp(x[2] - x[4] * v),
                ]
            )
            total = terms.sum(axis=0)
            jacobian = np.stack([*terms, -terms[1] * u, -terms[2] * v])
            if self.huber:
                return np.log(total / self.data.losses), jacobian / total
        return total - self.data.losses, jacobian

    def _cost(self, x: Floats) -> tuple[float, Floats]:
        residual, jacobian = self._residual(x)
        if not (np.isfinite(residual).all() and np.isfinite(jacobian).all()):
            return math.inf, np.zeros(5)
        if not self.huber:
            return float(residual @ residual), 2 * jacobian @ residual
        size = np.abs(residual)
        parts = np.where(size <= self.delta, size**2 / (2 * self.delta), size - self.delta / 2)
        return float(parts.sum()), jacobian @ np.clip(residual / self.delta, -1, 1)
