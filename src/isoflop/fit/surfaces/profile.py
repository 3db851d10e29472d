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
STEPS = 100
"""Most steps in all, those towards an end that is bracketed among them."""
NEAR_ENOUGH = 1e-6
"""How far from the limit the root of a profile's rise may be at its end, relative to it."""
ROUNDING = 1e-13
"""Width of a bracket, relative to where it is, within which rises of runs without noise are those
of rounding."""


def profile_intervals(
    fit: SurfaceFit, data: SurfaceData, *, level: float = LEVEL
) -> Mapping[str, Estimate]:
    """Return the profile interval of each of `UNKNOWNS`, of a fit that converged.

    An end that the runs do not bound is missing above, and zero below.
    """
    found = {}
    for name, pair in zip(UNKNOWNS, _ends(fit, data, level).reshape(-1, 2), strict=True):
        low, high = (np.exp(pair) if name in "EAB" else pair).tolist()
        found[name] = Estimate(
            value=getattr(fit.surface, name),
            low=low if math.isfinite(low) else 0.0,
            high=high if math.isfinite(high) else None,
        )
    return found


def _ends(fit: SurfaceFit, data: SurfaceData, level: float) -> Floats:
    """Return where each profile has risen by the limit, (M,); infinite where it does not.

    Each end is bracketed by steps outward, then found by the Illinois rule (Dowell, Jarratt 1971).
    """
    assert fit.surface is not None
    objective, ways = SurfaceObjective(data, fit.delta), DIRECTIONS[fit.equal_exponents]
    best, held = data.unknowns(fit.surface), np.eye(5)
    # A and B are held as they are quoted, at N = 1 and D = 1.
    held[1, 3], held[2, 4] = data.log_n0, data.log_d0
    held = np.repeat(held, 2, axis=0)
    costs, _, curvature = objective.expand(best[None], exact=False)
    inverse = ways @ np.linalg.pinv(ways.T @ curvature[0] @ ways, hermitian=True) @ ways.T
    # How the unknowns follow the held one, near the fit, and which may still move.
    tangents = (held @ inverse) / np.einsum("mk,kl,ml->m", held, inverse, held)[:, None]
    others = np.stack([_others(ways, one) for one in held])
    limit, centres = _limit(objective, best, ways.shape[1], level), held @ best
    sides = np.tile([-1.0, 1.0], len(UNKNOWNS))
    step, x = sides * np.maximum(1e-3, 0.01 * np.abs(centres)), np.tile(best, (len(sides), 1))
    near, low = centres, np.full(len(sides), -limit)
    far, high = np.full((2, len(sides)), math.nan)
    kept = np.zeros(len(sides))
    for turn in range(STEPS):
        crossed = np.isfinite(far)
        at = np.where(crossed, far - high * (far - near) / (high - low), near + step)
        step = 1.2 * step if turn + 1 < WIDENINGS else 0 * step
        start = x + tangents * (at - np.einsum("mk,mk->m", held, x))[:, None]
        free = (-math.inf, math.inf)
        x = descend(objective, start, directions=others, exact=True, bounds=free)
        above = np.sqrt(np.maximum(objective.costs(x) - costs[0], 0)) - limit
        beyond = above > 0
        # An end of the bracket that stays twice counts half, so that it moves as well.
        low = np.where(beyond, np.where(crossed & (kept > 0), low / 2, low), above)
        high = np.where(beyond, above, np.where(kept < 0, high / 2, high))
        near, far = np.where(beyond, near, at), np.where(beyond, at, far)
        kept = np.where(crossed, np.where(beyond, 1.0, -1.0), 0.0)
        close = np.abs(above) < NEAR_ENOUGH * limit
        narrow = np.abs(far - near) < ROUNDING * np.abs(at)
        if (close | narrow | ((turn + 1 >= WIDENINGS) & np.isnan(far))).all():
            break
    return np.where(np.isfinite(far), at, sides * math.inf)


def _limit(objective: SurfaceObjective, best: Floats, unknowns: int, level: float) -> float:
    """Return the root of how far the objective may rise, which is nearly a line in what is held."""
    *_, residual, slope, costs = objective.at(best[None])
    scale, runs = float(costs[0]), slope.shape[1]
    if objective.delta is not None:
        # Slopes at the fit are smaller than at the truth, by what the unknowns took up.
        scale = 0.5 * float(np.sum(slope**2)) * objective.delta
        scale /= float(within(residual[0], objective.delta).mean())
    free = runs - unknowns
    return math.sqrt(scale * float(special.fdtri(1, free, level)) / free)


def _others(ways: Floats, held: Floats) -> Floats:
    """Return directions (K, F - 1) in the span of `ways` (K, F) that do not move `held` (K,)."""
    share = held @ ways
    pivot = int(np.flatnonzero(share)[0])
    others = np.eye(len(share))
    others[pivot] -= share / share[pivot]
    return np.asarray(ways @ np.delete(others, pivot, axis=1))
