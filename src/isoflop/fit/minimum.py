"""Where a curve of loss over parameters has its minimum, and when that must not be said.

Two estimators for one budget: a parabola through the sizes around the lowest one (approach 2 of
arXiv 2203.15556), and Akima interpolation of log loss over log parameters (arXiv 2406.19146).
The third, a loss surface over all budgets, is in `isoflop.fit.surface`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import Akima1DInterpolator

from isoflop.config import Frozen
from isoflop.fit.sizes import Floats as Floats
from isoflop.fit.sizes import checked_curve, size_groups, size_means

Status = Literal[
    "converged",
    "edge",
    "concave",
    "too_few",
    "at_bound",
    "ill_conditioned",
    "not_converged",
    "outside",
    "scattered",
]
"""How a fit ended. Whatever a caller may use is `converged`; the rest say why not. `outside`: the
minimum's loss lies far outside the losses measured. `scattered`: the runs of a budget differ in
compute, and nothing tells how much loss that makes."""

Estimator = Literal["parabola", "akima", "surface", "variable_projection"]
"""`surface` is the Huber fit of approach 3; `variable_projection` fits the same surface."""

ESTIMATOR_NAMES: Mapping[Estimator, str] = {
    "parabola": "parabola",
    "akima": "Akima",
    "surface": "Huber surface",
    "variable_projection": "least-squares surface",
}
"""What a person reads."""

PARABOLA_SIZES = 3
AKIMA_SIZES = 5
WINDOW = 4.5
"""A grid of seven sizes a factor of 1.6 apart reaches 4.1 to either side; ladders are uneven."""
WINDOW_SIZES = 5
BELOW_LOWEST = 0.5
"""How far below the lowest size a minimum may lie, over the range of the curve's losses."""


class Minimum(Frozen):
    """The minimum of loss over parameters at one budget, or why there is none."""

    estimator: Estimator
    status: Status
    message: str
    parameters: float | None = None
    loss: float | None = None
    """Nats per token. Both are None unless `status` is `converged`."""
    side: Literal["smaller", "larger"] | None = None
    """For `edge`: where sizes are missing."""


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
        """Standard error of the log of the vertex's parameters (delta method).

        None when no runs are left over after three coefficients.
        """
        if self.degrees_of_freedom < 1:
            return None
        gradient = np.array([0.0, -1 / (2 * self.curvature), -self.vertex / self.curvature])
        return math.sqrt(max(0.0, float(gradient @ np.array(self.covariance) @ gradient)))

    @property
    def loss_error(self) -> float | None:
        """Standard error of the loss at the vertex, by the scatter about the parabola.

        None as above. The slope is zero there, so moving the vertex adds nothing.
        """
        if self.degrees_of_freedom < 1:
            return None
        gradient = np.array([1.0, self.vertex, self.vertex**2])
        return math.sqrt(max(0.0, float(gradient @ np.array(self.covariance) @ gradient)))

    @property
    def curvature_error(self) -> float | None:
        """Standard error of the curvature; None as above."""
        if self.degrees_of_freedom < 1:
            return None
        return math.sqrt(max(0.0, self.covariance[2][2]))


def refused_at_edge(estimator: Estimator, sizes: Floats, means: Floats) -> Minimum | None:
    """Return a refusal when the lowest measured size has no neighbour on one side."""
    best = int(np.argmin(means))
    if 0 < best < len(sizes) - 1:
        return None
    side: Literal["smaller", "larger"] = "smaller" if best == 0 else "larger"
    return Minimum(
        estimator=estimator,
        status="edge",
        side=side,
        message=f"the lowest loss is at an end of the sizes measured, {sizes[best]:,.0f} "
        f"parameters; measure {side} ones",
    )


def losses_within(means: ArrayLike) -> tuple[Floats, Floats]:
    """Return the lowest and highest loss that a minimum of curves (..., S) may have.

    Half of what a curve's sizes differ by below the lowest of them: a parabola lies at most an
    eighth below, where the minimum is half way between two of its sizes. Of five and more sizes,
    also no more than the middle one is above the lowest: a diverged run widens the range.
    """
    measured = np.asarray(means, dtype=np.float64)
    lowest, highest = measured.min(axis=-1), measured.max(axis=-1)
    below = BELOW_LOWEST * (highest - lowest)
    if measured.shape[-1] >= AKIMA_SIZES:
        below = np.minimum(below, np.median(measured, axis=-1) - lowest)
    return lowest - below, highest


def refused_outside(minimum: Minimum, means: Floats, slack: float = 0.0) -> Minimum:
    """Return a minimum, or its refusal where its loss lies far outside the losses measured.

    Args:
        minimum: one that has a loss.
        means: mean loss of each size of the curve, (S,).
        slack: loss by which it may lie further out, since runs scatter.
    """
    assert minimum.loss is not None
    low, high = losses_within(means)
    if low - slack <= minimum.loss <= high + slack:
        return minimum
    return Minimum(
        estimator=minimum.estimator,
        status="outside",
        message=f"its loss would be {minimum.loss:.4f}, far outside the losses measured at this "
        f"budget, {means.min():.4f} to {means.max():.4f}",
    )


def too_few(estimator: Estimator, sizes: int, needed: int) -> Minimum:
    """Return the refusal of a curve with fewer than `needed` sizes."""
    return Minimum(
        estimator=estimator,
        status="too_few",
        message=f"{sizes} size{'s' * (sizes != 1)} measured, {needed} needed",
    )


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


def akima(parameters: ArrayLike, losses: ArrayLike) -> Minimum:
    """Return the minimum of the Akima interpolation of log loss over log parameters.

    The runs of a size are averaged first, since the curve passes through every point.

    Refused: fewer than five sizes (a slope rests on two neighbours to either side), a lowest
    measured size at an end, a loss far outside those measured.

    Raises:
        ValueError: a loss is not positive, or values are not finite.
    """
    sizes, means = size_means(parameters, losses)
    if (means <= 0).any():
        raise ValueError(f"the lowest loss is {means.min():g}; log loss needs positive losses")
    if len(sizes) < AKIMA_SIZES:
        return too_few("akima", len(sizes), AKIMA_SIZES)
    refused = refused_at_edge("akima", sizes, means)
    if refused is not None:
        return refused
    x = np.log(sizes)
    curve = Akima1DInterpolator(x, np.log(means))
    flat = np.asarray(curve.derivative().roots(extrapolate=False), dtype=np.float64)
    candidates = np.concatenate([x, flat[np.isfinite(flat)]])
    heights = np.asarray(curve(candidates), dtype=np.float64)
    best = int(np.argmin(heights))
    found = Minimum(
        estimator="akima",
        status="converged",
        parameters=math.exp(candidates[best]),
        loss=math.exp(heights[best]),
        message=f"interpolation of {len(sizes)} sizes",
    )
    return refused_outside(found, means)
