"""The minimum by a parabola through the sizes around the lowest one (arXiv 2203.15556, approach 2).

loss = height + slope x + curvature x^2 with x = log(N / centre), by least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import CurveEstimator
from isoflop.fit.minima.sizes import size_groups, size_means

PARABOLA_SIZES = 3
WINDOW = 4.5
"""A grid of seven sizes a factor of 1.6 apart reaches 4.1 to either side; ladders are uneven."""
WINDOW_SIZES = 5


@dataclass(frozen=True, eq=False)
class Parabola:
    """Least-squares parabola in log parameters; a minimum where `curvature` > 0.

    It is fitted to runs, so that a size with three seeds counts three times, and only to sizes
    within a window around the lowest one: a valley is not symmetric, and points far up one side
    would shift the minimum.
    """

    parameters: float
    """At the vertex, as the loss, nats per token."""
    loss: float
    curvature: float
    errors: tuple[float, float, float]
    """Standard errors of log parameters, loss and curvature by the delta method. The slope is zero
    at the vertex, so that moving it adds nothing to the error of the loss."""
    spread: float
    """Of runs about the parabola; 0, as the errors, where none are left over."""
    degrees_of_freedom: int
    smallest: float
    largest: float
    """Sizes in the window."""


def fit_parabola(parameters: ArrayLike, losses: ArrayLike) -> Parabola:
    """Fit loss as a parabola in log parameters to the runs around the lowest size.

    Sizes within `WINDOW` times the lowest one are fitted, and never fewer than the five nearest.

    Args:
        parameters: size of each run; seeds of one size repeat it, and there are three at least.
        losses: nats per token of each run.
    """
    n, y = (np.asarray(one, dtype=np.float64) for one in (parameters, losses))
    sizes, of_run = size_groups(n)
    assert len(sizes) >= PARABOLA_SIZES
    means = np.bincount(of_run, weights=y) / np.bincount(of_run)
    kept = _in_window(sizes, int(np.argmin(means)))[of_run]
    n, y = n[kept], y[kept]
    centre, scale, powers = _powers(n)
    solve = np.linalg.pinv(powers)
    height, slope, bend = coefficients = solve @ y
    free = len(y) - 3
    variance = float(np.sum((y - powers @ coefficients) ** 2)) / free if free else 0.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x = -slope / (2 * bend)
        gradients = np.array(
            [
                [0.0, -scale / (2 * bend), -scale * x / bend],
                [1.0, x, x**2],
                [0.0, 0.0, 1 / scale**2],
            ]
        )
        size, loss, curvature = np.sqrt(variance) * np.linalg.norm(gradients @ solve, axis=1)
        return Parabola(
            parameters=float(np.exp(centre + scale * x)),
            loss=float(height + slope * x / 2),
            curvature=float(bend / scale**2),
            errors=(float(size), float(loss), float(curvature)),
            spread=math.sqrt(variance),
            degrees_of_freedom=free,
            smallest=float(n.min()),
            largest=float(n.max()),
        )


def _in_window(sizes: Floats, best: int) -> NDArray[np.bool_]:
    """Return which sizes a parabola about the one at index `best` is fitted to."""
    distance = np.abs(np.log(sizes / sizes[best]))
    nearest = np.sort(distance)[min(WINDOW_SIZES, len(sizes)) - 1]
    return np.asarray(distance <= max(math.log(WINDOW), nearest))


def _powers(parameters: Floats) -> tuple[float, float, Floats]:
    """Return the middle and the range of log parameters, and 1, x and x^2 of each in these."""
    x = np.log(parameters)
    centre, scale = float(x.mean()), float(np.ptp(x))
    return centre, scale, np.vander((x - centre) / scale, 3, increasing=True)


def lowest(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return log size and loss (R,) at the vertices of parabolas through runs; see `fit_parabola`.

    A vertex at or beyond the sizes in the window is none.
    """
    sizes, means = size_means(parameters, losses)
    best, of_run = means.argmin(axis=1), size_groups(parameters)[1]
    log_sizes, heights = np.full((2, len(losses)), math.nan)
    # Curves with the same lowest size are fitted to the same runs.
    for size in np.unique(best).tolist():
        copies = np.flatnonzero(best == size)
        kept = _in_window(sizes, size)[of_run]
        centre, scale, powers = _powers(parameters[kept])
        first, last = powers[:, 1].min(), powers[:, 1].max()
        height, slope, curvature = np.linalg.pinv(powers) @ losses[np.ix_(copies, kept)].T
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -slope / (2 * curvature)
        valley = curvature > 0
        good = valley & (first < vertex) & (vertex < last)
        log_sizes[copies[valley]] = centre + scale * vertex[valley].clip(first, last)
        heights[copies[good]] = (height + slope * vertex / 2)[good]
    return log_sizes, heights


def _through(sizes: Floats, best: int) -> str:
    return f"parabola through {_in_window(sizes, best).sum()} of {len(sizes)} sizes"


PARABOLA = CurveEstimator("parabola", "parabola", PARABOLA_SIZES, lowest, _through)
