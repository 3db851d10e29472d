"""Bootstrap of the loss surface: every resample is fitted, all of them in one array.

A resample only changes how often each run counts, so it is a row of weights, and a thousand
surfaces descend side by side from the fit to all runs.

Axes: R resamples, P runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.interval import LEVEL, Interval, percentile_interval
from isoflop.fit.minimum import Floats
from isoflop.fit.resampling import RESAMPLES
from isoflop.fit.surface import SurfaceFit, interpolated_tokens
from isoflop.fit.surface_data import SurfaceData, checked_runs
from isoflop.fit.surface_descent import descend

LARGEST_ARRAY = 4_000_000
"""Numbers in one array (R, P); more resamples go in several batches."""
ALONG_BUDGET = 801
"""Sizes, even in log, at which resampled surfaces are evaluated along a budget."""
QUANTITIES = ("E", "A", "B", "alpha", "beta", "a", "b")
"""`a` and `b` are the exponents of the optimal N and D in compute: beta / (alpha + beta) and
alpha / (alpha + beta)."""


def compute_exponents(alpha: ArrayLike, beta: ArrayLike) -> tuple[Floats, Floats]:
    """Return a and b of N = G (C / 6)^a and D = (C / 6)^b / G (arXiv 2203.15556, equation 4)."""
    one, two = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    return two / (one + two), one / (one + two)


def surface_draws(
    fit: SurfaceFit,
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    delta: float = HUBER_DELTA,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Floats:
    """Return the surface of each resample of the runs, columns as `QUANTITIES`, shape (R, 7).

    Args:
        fit: the surface through all runs, of the estimator that is to be resampled.
        parameters: N of each run.
        tokens: D of each run.
        losses: nats per token of each run.
        clusters: label of each run; runs with one label share something and are drawn together.
        delta: of the Huber loss, where the fit is by it.
        resamples: R.
        seed: of the draws.

    Raises:
        ValueError: there is no surface to start from, or the columns do not fit together.
    """
    data = checked_runs(parameters, tokens, losses)
    if fit.surface is None:
        raise ValueError(f"there is no surface to resample: {fit.message}")
    weights = _weights(len(data.losses), clusters, resamples, np.random.default_rng(seed))
    start = _unknowns(fit, data)
    step = max(1, LARGEST_ARRAY // (5 * len(data.losses)))
    parts = [
        descend(data, start, weights[at : at + step], huber=fit.estimator == "surface", delta=delta)
        for at in range(0, resamples, step)
    ]
    return _quantities(np.concatenate(parts), data)


def surface_intervals(
    fit: SurfaceFit, draws: Floats, *, level: float = LEVEL
) -> Mapping[str, Interval]:
    """Return the percentile interval of each of `QUANTITIES`."""
    assert fit.surface is not None
    s = fit.surface
    a, b = compute_exponents(s.alpha, s.beta)
    values = (s.E, s.A, s.B, s.alpha, s.beta, float(a), float(b))
    whole = np.isfinite(draws).all(axis=1, keepdims=True)
    columns = np.where(whole, draws, math.nan).T
    return {
        name: percentile_interval(value, column, level=level)
        for name, value, column in zip(QUANTITIES, values, columns, strict=True)
    }


def draws_along_budget(
    draws: Floats, parameters: ArrayLike, tokens: ArrayLike
) -> tuple[Floats, Floats]:
    """Return log size and loss at the minimum of each resampled surface along one budget.

    Both have shape (R,), with NaN where a surface is lowest at an end of the sizes.

    Args:
        draws: as `surface_draws` returns them.
        parameters: N of each run at the budget; the search stays between the smallest and largest.
        tokens: D of each of them.
    """
    sizes = np.asarray(parameters, dtype=np.float64)
    grid = np.linspace(math.log(sizes.min()), math.log(sizes.max()), ALONG_BUDGET)
    return lowest_along(draws, grid, np.log(interpolated_tokens(sizes, tokens)(np.exp(grid))))


def lowest_along(draws: Floats, log_sizes: Floats, log_tokens: Floats) -> tuple[Floats, Floats]:
    """Return log size and loss at the minimum of each surface along a path of sizes and tokens.

    Both have shape (R,), with NaN where a surface is lowest at an end of the path.

    Args:
        draws: as `surface_draws` returns them, (R, 5 or more).
        log_sizes: log N of each point of the path, evenly apart.
        log_tokens: log D of each of them.
    """
    e, a, b, alpha, beta = (column[:, None] for column in draws.T[:5])
    with np.errstate(over="ignore", invalid="ignore"):
        losses = e + a * np.exp(-alpha * log_sizes) + b * np.exp(-beta * log_tokens)
    best = np.argmin(np.where(np.isnan(losses), np.inf, losses), axis=1)
    inside = (best > 0) & (best < len(log_sizes) - 1)
    at = np.clip(best, 1, len(log_sizes) - 2)
    left, middle, right = (losses[np.arange(len(at)), at + step] for step in (-1, 0, 1))
    # Three points of a fine grid: their parabola is as good as any search.
    with np.errstate(invalid="ignore"):
        bend = left - 2 * middle + right
        shift = np.where(bend > 0, (left - right) / (2 * np.where(bend > 0, bend, 1)), 0.0)
        log_n = log_sizes[at] + shift * (log_sizes[1] - log_sizes[0])
        loss = middle - (left - right) * shift / 4
    return np.where(inside, log_n, math.nan), np.where(inside, loss, math.nan)


def _weights(
    runs: int, clusters: ArrayLike | None, resamples: int, generator: np.random.Generator
) -> Floats:
    """Return how often each run counts in each resample, shape (R, P)."""
    if clusters is None:
        labels = np.arange(runs)
    else:
        labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
        if labels.shape != (runs,):
            raise ValueError(f"clusters has shape {labels.shape}; expected a label per run")
    groups = int(labels.max()) + 1
    times = generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples)
    return times[:, labels].astype(np.float64)


def _unknowns(fit: SurfaceFit, data: SurfaceData) -> Floats:
    s = fit.surface
    assert s is not None
    # A term of zero has no log; far below the others it is as good as none.
    least = 1e-9 * float(data.losses.min())
    return np.array(
        [
            math.log(max(s.E, least)),
            math.log(max(s.A * math.exp(-s.alpha * data.log_n0), least)),
            math.log(max(s.B * math.exp(-s.beta * data.log_d0), least)),
            s.alpha,
            s.beta,
        ]
    )


def _quantities(x: Floats, data: SurfaceData) -> Floats:
    alpha, beta = x[:, 3], x[:, 4]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        scale_a, scale_b = x[:, 1] + alpha * data.log_n0, x[:, 2] + beta * data.log_d0
        exponents = compute_exponents(alpha, beta)
        columns = [np.exp(x[:, 0]), np.exp(scale_a), np.exp(scale_b), alpha, beta, *exponents]
    return np.stack(columns, axis=1)
