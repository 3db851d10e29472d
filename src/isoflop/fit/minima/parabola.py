"""The minimum by a parabola through the sizes around the lowest one (arXiv 2203.15556, approach 2).

loss = height + slope x + curvature x^2 with x = log(N / centre), by least squares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import (
    CurveEstimator,
    Minimum,
    copy_ends,
    refused,
    refused_outside,
    within,
)
from isoflop.fit.minima.sizes import checked_curve, size_groups, size_means

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
        parameters: size of each run; seeds of one size repeat it.
        losses: nats per token of each run.

    Raises:
        ValueError: fewer than three sizes, or values that are not finite.
    """
    n, y = checked_curve(parameters, losses)
    sizes, of_run = size_groups(n)
    if len(sizes) < PARABOLA_SIZES:
        raise ValueError(f"a parabola needs {PARABOLA_SIZES} sizes; got {len(sizes)}")
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
            smallest=float(n[0]),
            largest=float(n[-1]),
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


def parabola(parameters: ArrayLike, losses: ArrayLike) -> Minimum:
    """Return the minimum of a parabola in log parameters; see `fit_parabola`.

    Refused: fewer than three sizes, a lowest measured size at an end, a parabola that opens
    downwards, a vertex at or beyond the sizes in the window, a loss far outside those measured.
    """
    sizes, means = size_means(parameters, losses)
    refusal = refused("parabola", sizes, means, PARABOLA_SIZES)
    if refusal is not None:
        return refusal
    fit = fit_parabola(parameters, losses)
    if fit.curvature <= 0:
        return Minimum(
            estimator="parabola",
            status="concave",
            message=f"the parabola opens downwards (curvature {fit.curvature:.3g})",
        )
    if not fit.smallest < fit.parameters < fit.largest:
        side: Literal["smaller", "larger"]
        side = "smaller" if fit.parameters <= fit.smallest else "larger"
        return Minimum(
            estimator="parabola",
            status="edge",
            side=side,
            message=f"the parabola's vertex lies outside the sizes {fit.smallest:,.0f} to "
            f"{fit.largest:,.0f} that it was fitted to; measure {side} ones",
        )
    used = int(np.count_nonzero((sizes >= fit.smallest) & (sizes <= fit.largest)))
    found = Minimum(
        estimator="parabola",
        status="converged",
        parameters=fit.parameters,
        loss=fit.loss,
        message=f"parabola through {used} of {len(sizes)} sizes",
    )
    return refused_outside(found, means)


def _in_copies(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return what `parabola` says of each row of `losses` (R, P), as `CurveEstimator` does."""
    sizes, means = size_means(parameters, losses)
    best = means.argmin(axis=1)
    heights = np.full(len(losses), math.nan)
    if len(sizes) < PARABOLA_SIZES:
        return heights, heights
    log_sizes, of_run = copy_ends(sizes, best), size_groups(parameters)[1]
    # Copies with the same lowest size are fitted to the same runs.
    for lowest in np.unique(best[(best > 0) & (best < len(sizes) - 1)]).tolist():
        copies = np.flatnonzero(best == lowest)
        kept = _in_window(sizes, lowest)[of_run]
        centre, scale, powers = _powers(parameters[kept])
        first, last = powers[:, 1].min(), powers[:, 1].max()
        height, slope, curvature = np.linalg.pinv(powers) @ losses[np.ix_(copies, kept)].T
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -slope / (2 * curvature)
        valley = curvature > 0
        good = valley & (first < vertex) & (vertex < last)
        log_sizes[copies[valley]] = centre + scale * vertex[valley].clip(first, last)
        heights[copies[good]] = (height + slope * vertex / 2)[good]
    return log_sizes, np.where(within(heights, means), heights, math.nan)


PARABOLA = CurveEstimator("parabola", "parabola", parabola, _in_copies)
