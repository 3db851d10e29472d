"""The minimum by a parabola through the sizes around the lowest one (arXiv 2203.15556, approach 2).

loss = height + slope x + curvature x^2 with x = log(N / centre), by least squares.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import (
    CurveEstimator,
    Minimum,
    copies_within,
    copy_ends,
    refused_at_edge,
    refused_outside,
    too_few,
)
from isoflop.fit.minima.sizes import checked_curve, copy_means, size_groups, size_means

PARABOLA_SIZES = 3
WINDOW = 4.5
"""A grid of seven sizes a factor of 1.6 apart reaches 4.1 to either side; ladders are uneven."""
WINDOW_SIZES = 5


class Parabola(Frozen):
    """Least-squares parabola loss = height + slope * x + curvature * x^2, x = log(N / centre).

    It is fitted to runs, so that a size with three seeds counts three times, and only to sizes
    within a window around the lowest one: a valley is not symmetric, and points far up one side
    would shift the minimum.
    """

    centre: float
    height: float
    slope: float
    curvature: float
    covariance: tuple[tuple[float, float, float], ...]
    """Of (height, slope, curvature), from the scatter of the runs about the parabola."""
    degrees_of_freedom: int
    smallest: float
    largest: float
    """Sizes in the window."""

    @property
    def vertex(self) -> float:
        """Log of the vertex's parameters over `centre`; a minimum when `curvature` > 0."""
        return -self.slope / (2 * self.curvature)

    @property
    def parameters(self) -> float:
        """Parameters at the vertex."""
        return self.centre * math.exp(self.vertex)

    @property
    def loss(self) -> float:
        """Loss at the vertex, nats per token."""
        return self.height + self.slope * self.vertex / 2

    def loss_at(self, parameters: ArrayLike) -> Floats:
        """Return the fitted loss at `parameters`."""
        x = np.log(np.asarray(parameters, dtype=np.float64) / self.centre)
        return self.height + self.slope * x + self.curvature * x**2

    @property
    def log_parameters_error(self) -> float | None:
        """Standard error of the log of the vertex's parameters."""
        return self._error(0.0, -1 / (2 * self.curvature), -self.vertex / self.curvature)

    @property
    def loss_error(self) -> float | None:
        """Standard error of the loss at the vertex, by the scatter about the parabola.

        The slope is zero there, so moving the vertex adds nothing.
        """
        return self._error(1.0, self.vertex, self.vertex**2)

    @property
    def curvature_error(self) -> float | None:
        """Standard error of the curvature."""
        return self._error(0.0, 0.0, 1.0)

    def _error(self, *gradient: float) -> float | None:
        """Return the error of what has this gradient in the coefficients (delta method).

        None when no runs are left over after three coefficients.
        """
        if self.degrees_of_freedom < 1:
            return None
        slopes = np.array(gradient)
        return math.sqrt(max(0.0, float(slopes @ np.array(self.covariance) @ slopes)))


def in_window(sizes: Floats, best: int, window: float = WINDOW) -> NDArray[np.bool_]:
    """Return which sizes a parabola about the one at index `best` is fitted to."""
    distance = np.abs(np.log(sizes / sizes[best]))
    nearest = np.sort(distance)[min(WINDOW_SIZES, len(sizes)) - 1]
    return np.asarray(distance <= max(math.log(window), nearest))


def fit_parabola(parameters: ArrayLike, losses: ArrayLike, *, window: float = WINDOW) -> Parabola:
    """Fit loss as a parabola in log parameters to the runs around the lowest size.

    Args:
        parameters: size of each run; seeds of one size repeat it.
        losses: nats per token of each run.
        window: sizes within this factor of the lowest one are fitted, and never fewer than the
            five nearest. `math.inf` for all.

    Raises:
        ValueError: fewer than three sizes, or values that are not finite.
    """
    n, y = checked_curve(parameters, losses)
    sizes, of_run = size_groups(n)
    if len(sizes) < PARABOLA_SIZES:
        raise ValueError(f"a parabola needs {PARABOLA_SIZES} sizes; got {len(sizes)}")
    means = np.bincount(of_run, weights=y) / np.bincount(of_run)
    kept = in_window(sizes, int(np.argmin(means)), window)[of_run]
    n, y = n[kept], y[kept]

    centre = float(np.exp(np.log(n).mean()))
    x = np.log(n / centre)
    scale = float(np.abs(x).max())
    powers = np.stack([np.ones_like(x), x / scale, (x / scale) ** 2], axis=1)
    coefficients, *_ = np.linalg.lstsq(powers, y, rcond=None)
    free = len(y) - 3
    unscale = np.array([1.0, 1 / scale, 1 / scale**2])
    variance = float(np.sum((y - powers @ coefficients) ** 2)) / free if free else 0.0
    covariance = variance * np.linalg.inv(powers.T @ powers) * np.outer(unscale, unscale)
    height, slope, curvature = (coefficients * unscale).tolist()
    return Parabola(
        centre=centre,
        height=height,
        slope=slope,
        curvature=curvature,
        covariance=tuple((row[0], row[1], row[2]) for row in covariance.tolist()),
        degrees_of_freedom=free,
        smallest=float(n[0]),
        largest=float(n[-1]),
    )


def parabola(parameters: ArrayLike, losses: ArrayLike, *, window: float = WINDOW) -> Minimum:
    """Return the minimum of a parabola in log parameters; see `fit_parabola`.

    Refused: fewer than three sizes, a lowest measured size at an end, a parabola that opens
    downwards, a vertex at or beyond the sizes in the window, a loss far outside those measured.
    """
    sizes, means = size_means(parameters, losses)
    if len(sizes) < PARABOLA_SIZES:
        return too_few("parabola", len(sizes), PARABOLA_SIZES)
    refused = refused_at_edge("parabola", sizes, means)
    if refused is not None:
        return refused
    fit = fit_parabola(parameters, losses, window=window)
    if fit.curvature <= 0:
        return Minimum(
            estimator="parabola",
            status="concave",
            message=f"the parabola opens downwards (curvature {fit.curvature:.3g})",
        )
    if not math.log(fit.smallest / fit.centre) < fit.vertex < math.log(fit.largest / fit.centre):
        side: Literal["smaller", "larger"] = "smaller" if fit.vertex < 0 else "larger"
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
    sizes, inverse, means = copy_means(parameters, losses)
    best = means.argmin(axis=1)
    heights = np.full(len(losses), math.nan)
    if len(sizes) < PARABOLA_SIZES:
        return heights, heights
    log_sizes = copy_ends(sizes, best)
    # Copies with the same lowest size are fitted to the same runs.
    for lowest in np.unique(best[(best > 0) & (best < len(sizes) - 1)]).tolist():
        copies = np.flatnonzero(best == lowest)
        kept = in_window(sizes, lowest)[inverse]
        x = np.log(parameters[kept])
        centre, scale = x.mean(), float(np.ptp(x))
        x = (x - centre) / scale
        solve = np.linalg.pinv(np.stack([np.ones_like(x), x, x**2], axis=1))
        height, slope, curvature = solve @ losses[np.ix_(copies, kept)].T
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -slope / (2 * curvature)
        valley = curvature > 0
        good = valley & (x.min() < vertex) & (vertex < x.max())
        log_sizes[copies[valley]] = centre + scale * vertex[valley].clip(x.min(), x.max())
        heights[copies[good]] = (height + slope * vertex / 2)[good]
    return log_sizes, copies_within(heights, means)


PARABOLA = CurveEstimator("parabola", "parabola", parabola, _in_copies)
