"""Approach 3 of arXiv 2203.15556: the loss surface by Huber loss on the log of the loss."""

from __future__ import annotations

import itertools
import math

import numpy as np

from isoflop.fit.intervals import Floats
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces.data import (
    EXPONENTS,
    SurfaceData,
    SurfaceEstimator,
    directions,
    judged,
    too_few_pairs,
)
from isoflop.fit.surfaces.descent import SurfaceObjective, descend, stationary
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import SurfaceFit

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


def fit_huber(data: SurfaceData, settings: FitSettings | None = None) -> SurfaceFit:
    """Fit the surface by Huber loss on log fitted - log measured loss (approach 3).

    The objective is evaluated on the whole grid of starts and descended from the best of them and
    from variable projection's answer; the lowest point is followed to the end with exact gradient
    and curvature: the published optimiser had stopped early (arXiv 2404.10102).

    Args:
        data: the runs.
        settings: `delta`, the residual of log loss above which a run counts linearly, and
            `equal_exponents`.
    """
    asked = settings or FitSettings()
    made = SurfaceFit(
        estimator="surface",
        status="not_converged",
        message="",
        points=len(data),
        equal_exponents=asked.equal_exponents,
        delta=asked.delta,
    )
    refused = too_few_pairs(data, made)
    if refused is not None:
        return refused
    ways = directions(equal_exponents=asked.equal_exponents)
    objective = SurfaceObjective(data, asked.delta)
    ends = _descended(data, objective, asked)
    best = stationary(objective, ends[int(np.argmin(objective.costs(ends)))], ways)
    _, gradient, _ = objective.expand(best[None], exact=False)
    settled = bool(np.abs(gradient[0] @ ways).max() / len(data) < SETTLED)
    log_e, a, b, alpha, beta = best.tolist()
    if not all(EXPONENTS[0] < value < EXPONENTS[1] for value in (alpha, beta)):
        message = (
            f"alpha and beta ran to {alpha:.3g} and {beta:.3g}, bounds are "
            f"{EXPONENTS[0]} to {EXPONENTS[1]}"
        )
        return made.model_copy(update={"status": "at_bound", "message": message})
    surface = data.surface(math.exp(log_e), math.exp(a), math.exp(b), alpha, beta)
    return judged(data, made, surface, settled)


def _descended(data: SurfaceData, objective: SurfaceObjective, settings: FitSettings) -> Floats:
    """Return where the descents from the best starts end, (ends, K)."""
    ways = directions(equal_exponents=settings.equal_exponents)
    rough = SurfaceObjective(data.thinned(), settings.delta)
    grid = _starts(data, equal_exponents=settings.equal_exponents)
    chosen = grid[np.argsort(rough.costs(grid), kind="stable")[:STARTS]]
    projected = fit_variable_projection(data, settings)
    known = None if projected.surface is None else data.unknowns(projected.surface)
    if known is not None and np.isfinite(known).all():
        chosen = np.concatenate([chosen, known[None]])
    # E = 0 is at minus infinity in log E, where no descent arrives: it is tried on its own.
    floorless = chosen.copy()
    floorless[:, 0] = -math.inf
    candidates = []
    for points in (floorless, chosen):
        near = descend(rough, points, directions=ways, converged=CLOSE)
        nearest = near[np.argsort(rough.costs(near), kind="stable")[:FINALISTS]]
        candidates.append(
            descend(objective, nearest, directions=ways, exact=True, converged=ARRIVED)
        )
    return np.concatenate(candidates)


def _starts(data: SurfaceData, *, equal_exponents: bool) -> Floats:
    """Return the grid of starts (S, K), which spans what is plausible.

    Log terms at N0, D0 are of the size of the log loss.
    """
    levels = float(np.log(data.losses).mean()) + np.array(START_LEVELS)
    exponents = (
        [(one, one) for one in START_EXPONENTS]
        if equal_exponents
        else list(itertools.product(START_EXPONENTS, repeat=2))
    )
    heights = itertools.product(levels, repeat=3)
    return np.array([[*terms, *pair] for terms in heights for pair in exponents])


HUBER = SurfaceEstimator("surface", "Huber surface", fit_huber)
