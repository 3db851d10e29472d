"""Approach 3 of arXiv 2203.15556: the loss surface by Huber loss on the log of the loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.minimum import Floats
from isoflop.fit.projection import fit_variable_projection
from isoflop.fit.surface import SurfaceFit
from isoflop.fit.surface_data import (
    EXPONENTS,
    SurfaceData,
    checked_runs,
    directions,
    judged,
    thinned,
    too_few_pairs,
)
from isoflop.fit.surface_descent import SurfaceObjective, descend, stationary

HUBER_DELTA = 1e-3
START_LEVELS = (-3.0, -1.5, -0.7, -0.2)
"""Logs of the terms E, A and B at the mean size and tokens, less the mean log loss."""
START_EXPONENTS = (0.1, 0.3, 0.6, 1.0, 2.0)
"""The grid of starts is every combination of three levels and two exponents."""
STARTS = 32
CLOSE = 1e-4
"""Relative fall in a step below which a descent from a start has come close."""
FINALISTS = 4
"""The lowest of these that are followed to the end."""
ARRIVED = 1e-15
"""Relative fall in the last step of these."""
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
    equal_exponents: bool = False,
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
        equal_exponents: hold alpha and beta equal, for grids at fixed tokens per parameter.

    Raises:
        ValueError: lengths differ, or a value is not positive and finite.
    """
    data = checked_runs(parameters, tokens, losses)
    refused = too_few_pairs("surface", data, equal_exponents=equal_exponents)
    if refused is not None:
        return refused
    ways = directions(equal_exponents=equal_exponents)
    rough, objective = SurfaceObjective(thinned(data), delta), SurfaceObjective(data, delta)
    grid = _starts(data, equal_exponents=equal_exponents)
    chosen = grid[np.argsort(rough.costs(grid), kind="stable")[:starts]]
    projected = fit_variable_projection(parameters, tokens, losses, equal_exponents=equal_exponents)
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
    ends = np.concatenate(candidates)
    best = stationary(objective, ends[int(np.argmin(objective.costs(ends)))], ways)
    _, gradient, _ = objective.expand(best[None], exact=False)
    settled = bool(np.abs(gradient[0] @ ways).max() / len(data.losses) < SETTLED)
    log_e, a, b, alpha, beta = best.tolist()
    if not all(EXPONENTS[0] < value < EXPONENTS[1] for value in (alpha, beta)):
        return SurfaceFit(
            estimator="surface",
            status="at_bound",
            points=len(data.losses),
            message=f"alpha and beta ran to {alpha:.3g} and {beta:.3g}, bounds are "
            f"{EXPONENTS[0]} to {EXPONENTS[1]}",
            equal_exponents=equal_exponents,
        )
    surface = data.surface(math.exp(log_e), math.exp(a), math.exp(b), alpha, beta)
    return judged("surface", data, surface, settled, equal_exponents=equal_exponents)


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
