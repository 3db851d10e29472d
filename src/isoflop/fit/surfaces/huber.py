"""Approach 3 of arXiv 2203.15556: the loss surface by Huber loss on the log of the loss."""

from __future__ import annotations

import itertools
import math

import numpy as np

from isoflop.fit.intervals import Floats
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces import projection
from isoflop.fit.surfaces.data import DIRECTIONS, SurfaceData, SurfaceEstimator
from isoflop.fit.surfaces.descent import SurfaceObjective, descend, stationary
from isoflop.fit.surfaces.surface import Surface

START_LEVELS = (-3.0, -1.5, -0.7, -0.2)
"""Logs of the terms E, A and B at the mean size and tokens, less the mean log loss."""
START_EXPONENTS = (0.1, 0.3, 0.6, 1.0, 2.0)
"""The grid of starts is every combination of three levels and two exponents."""
STARTS = 32
"""Points of this grid, the best ones, that are descended from."""
CLOSE = 1e-4
"""Relative fall in a step below which a descent from a start has come close."""
FINALISTS = 4
"""The lowest of these that are followed to the end."""
ARRIVED = 1e-15
"""Relative fall in the last step of these."""
SETTLED = 1e-6
"""Gradient of the mean Huber loss over delta, of order one far from a minimum, that counts as
zero."""


def search(data: SurfaceData, settings: FitSettings) -> tuple[Surface, bool]:
    """Return where the Huber loss on log fitted - log measured loss is lowest (approach 3).

    The objective is evaluated on the whole grid of starts and descended from the best of them and
    from variable projection's answer; the lowest point is followed to the end with exact gradient
    and curvature: the published optimiser had stopped early (arXiv 2404.10102).
    """
    ways = DIRECTIONS[settings.equal_exponents]
    objective = SurfaceObjective(data, settings.delta)
    rough = SurfaceObjective(data.thinned(), settings.delta)
    # Log terms at N0, D0 are of the size of the log loss.
    levels = float(np.log(data.losses).mean()) + np.array(START_LEVELS)
    grid = itertools.product(levels, levels, levels, START_EXPONENTS, START_EXPONENTS)
    starts = [one for one in grid if one[3] == one[4] or not settings.equal_exponents]
    chosen = _lowest(rough, np.array(starts), STARTS)
    projected, settled = projection.searched(data, settings.equal_exponents)
    known = data.unknowns(projected)
    if settled and np.isfinite(known).all():
        chosen = np.concatenate([chosen, known[None]])
    # E = 0 is at minus infinity in log E, where no descent arrives: it is tried on its own.
    floorless = chosen.copy()
    floorless[:, 0] = -math.inf
    ends = []
    for points in (floorless, chosen):
        near = descend(rough, points, directions=ways, converged=CLOSE)
        nearest = _lowest(rough, near, FINALISTS)
        ends.append(descend(objective, nearest, directions=ways, exact=True, converged=ARRIVED))
    best = stationary(objective, _lowest(objective, np.concatenate(ends), 1)[0], ways)
    _, gradient, _ = objective.expand(best[None], exact=False)
    surface = data.surface(*map(math.exp, best[:3]), *best[3:].tolist())
    return surface, bool(np.abs(gradient[0] @ ways).max() / len(data) < SETTLED)


def _lowest(objective: SurfaceObjective, points: Floats, count: int) -> Floats:
    """Return the points (count, K) at which an objective is lowest, the lowest first."""
    return np.asarray(points[np.argsort(objective.costs(points), kind="stable")[:count]])


HUBER = SurfaceEstimator("surface", "Huber surface", robust=True, search=search)
fit_huber = HUBER.fit
