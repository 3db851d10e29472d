"""Profile likelihood of the loss surface: one unknown is held, the others are fitted again.

For least squares the Gaussian likelihood ratio decides how far a profile may rise (an F
threshold). For Huber the ratio of its objectives has the same limit once scaled by
E[psi^2] / E[psi'] (Ronchetti 1982), which the residuals tell.

Holding an unknown leaves the others a space to move in, so that all ends are sought side by side.

Axes: M ends, two for each unknown, K = 5 unknowns and F directions as in `data`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import special

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.intervals import Floats
from isoflop.fit.surfaces.bootstrap import QUANTITIES, within
from isoflop.fit.surfaces.data import DIRECTIONS, SurfaceData
from isoflop.fit.surfaces.descent import SurfaceObjective, descend
from isoflop.fit.surfaces.surface import SurfaceFit

UNKNOWNS = QUANTITIES[:5]
WIDENINGS = 40
"""Steps outward, each a fifth longer than the last, before an end counts as not found."""
CROSSINGS = 60
"""Most steps towards an end once it is bracketed."""
NEAR_ENOUGH = 1e-6
"""How far from the limit the root of a profile's rise may be at its end, relative to it."""
ROUNDING = 1e-13
"""Width of a bracket, relative to where it is, within which rises of runs without noise are those
of rounding."""


def profile_intervals(
    fit: SurfaceFit, data: SurfaceData, *, level: float = LEVEL
) -> Mapping[str, Estimate]:
    """Return the profile interval of each of `UNKNOWNS`.

    An end that the runs do not bound is missing above, and zero below.

    Raises:
        ValueError: the fit did not converge.
    """
    s = fit.surface
    if s is None or fit.status != "converged":
        raise ValueError(f"there is no surface to profile: {fit.message}")
    found = {}
    ends = _Profile(data, fit, data.unknowns(s), level).ends()
    for name, pair in zip(UNKNOWNS, ends.reshape(-1, 2), strict=True):
        low, high = (np.exp(pair) if name in "EAB" else pair).tolist()
        found[name] = Estimate(
            value=getattr(s, name),
            low=low if math.isfinite(low) else 0.0,
            high=high if math.isfinite(high) else None,
        )
    return found


class _Profile:
    """The objective with one unknown held, for each unknown and either side of its value.

    A and B are held as they are quoted, at N = 1 and D = 1: their logs are sums of centred
    unknowns.
    """

    def __init__(self, data: SurfaceData, fit: SurfaceFit, best: Floats, level: float) -> None:
        self.objective = SurfaceObjective(data, fit.delta)
        self.best = best
        ways = DIRECTIONS[fit.equal_exponents]
        held = np.eye(5)
        held[1, 3], held[2, 4] = data.log_n0, data.log_d0
        costs, _, curvature = self.objective.expand(best[None], exact=False)
        inverse = ways @ np.linalg.pinv(ways.T @ curvature[0] @ ways, hermitian=True) @ ways.T
        self.held = np.repeat(held, 2, axis=0)
        """What is held of the unknowns at each end, (M, K)."""
        moved = self.held @ inverse
        self.tangents = moved / np.einsum("mk,mk->m", moved, self.held)[:, None]
        """How the unknowns follow the held one, near the fit, (M, K)."""
        self.ways = np.stack([_others(ways, one) for one in self.held])
        """What may still move, (M, K, F - 1)."""
        self.lowest = scale = float(costs[0])
        if fit.delta is not None:
            *_, residual, slope, _ = self.objective.at(best[None])
            # Slopes at the fit are smaller than at the truth, by what the unknowns took up.
            scale = 0.5 * float(np.sum(slope**2)) * fit.delta
            scale /= float(within(residual[0], fit.delta).mean())
        free = len(data) - int(ways.shape[1])
        self.limit = math.sqrt(scale * float(special.fdtri(1, free, level)) / free)
        """Root of how far the objective may rise, which is nearly a line in what is held."""

    def ends(self) -> Floats:
        """Return where each profile has risen by the limit, (M,); infinite where it does not."""
        centres = self.held @ self.best
        sides = np.tile([-1.0, 1.0], len(UNKNOWNS))
        near, far = centres.copy(), centres.copy()
        x = np.tile(self.best, (len(sides), 1))
        low, high = np.full(len(sides), -self.limit), np.full(len(sides), math.nan)
        step = sides * np.maximum(1e-3, 0.01 * np.abs(centres))
        left = np.arange(len(sides))
        for _ in range(WIDENINGS):
            near[left] = far[left]
            far[left] += step[left]
            step *= 1.2
            above, x[left] = self._above(left, far[left], x[left])
            crossed = above > 0
            high[left[crossed]] = above[crossed]
            low[left[~crossed]] = above[~crossed]
            left = left[~crossed]
            if not len(left):
                break
        found = np.flatnonzero(np.isfinite(high))
        ends = sides * math.inf
        if len(found):
            ends[found] = self._roots(found, x, near, far, low, high)
        return ends

    def _roots(self, ends: NDArray[np.intp], *brackets: Floats) -> Floats:
        """Return where profiles cross the limit, by the Illinois rule (Dowell, Jarratt 1971)."""
        x, near, far, low, high = (one[ends] for one in brackets)
        kept = np.zeros(len(ends))
        for _ in range(CROSSINGS):
            at = far - high * (far - near) / (high - low)
            above, x = self._above(ends, at, x)
            beyond = above > 0
            # An end of the bracket that stays twice counts half, so that it moves as well.
            low = np.where(beyond, np.where(kept > 0, low / 2, low), above)
            high = np.where(beyond, above, np.where(kept < 0, high / 2, high))
            near, far = np.where(beyond, near, at), np.where(beyond, at, far)
            kept = np.where(beyond, 1.0, -1.0)
            close = np.abs(above) < NEAR_ENOUGH * self.limit
            if (close | (np.abs(far - near) < ROUNDING * np.abs(at))).all():
                break
        return np.asarray(at)

    def _above(self, ends: NDArray[np.intp], at: Floats, x: Floats) -> tuple[Floats, Floats]:
        """Return how far each root is above the limit where `at` is held, and x (ends, K) there."""
        start = x + self.tangents[ends] * (at - np.einsum("mk,mk->m", self.held[ends], x))[:, None]
        free = (-math.inf, math.inf)
        x = descend(self.objective, start, directions=self.ways[ends], exact=True, bounds=free)
        return np.sqrt(np.maximum(self.objective.costs(x) - self.lowest, 0)) - self.limit, x


def _others(ways: Floats, held: Floats) -> Floats:
    """Return directions (K, F - 1) in the span of `ways` (K, F) that do not move `held` (K,)."""
    share = held @ ways
    pivot = int(np.flatnonzero(share)[0])
    others = np.eye(len(share))
    others[pivot] -= share / share[pivot]
    return np.asarray(ways @ np.delete(others, pivot, axis=1))
