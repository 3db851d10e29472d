"""The minimum by Akima interpolation of log loss over log parameters (arXiv 2406.19146)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import Akima1DInterpolator

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import (
    MANY_SIZES,
    CurveEstimator,
    Minimum,
    copies_within,
    copy_ends,
    refused_at_edge,
    refused_outside,
    too_few,
)
from isoflop.fit.minima.sizes import copy_means, size_means

AKIMA_SIZES = MANY_SIZES


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


def _in_copies(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return what `akima` says of each row of `losses` (R, P), as `CurveEstimator` does."""
    sizes, _, means = copy_means(parameters, losses)
    none = np.full(len(losses), math.nan)
    if len(sizes) < AKIMA_SIZES:
        return none, none
    # A copy may fall below zero where losses are small against their noise.
    x, y = np.log(sizes), np.log(np.maximum(means, 1e-12 * means.max())).T
    curve = Akima1DInterpolator(x, y)
    cubic, square, slope, start = curve.c
    # Where the slope of each piece is zero, if that is within the piece; and the points.
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(square**2 - 3 * cubic * slope)
        # Written so that a piece of hardly any third power loses no digits.
        outer = -(square + np.copysign(root, square))
        offsets = np.stack([np.zeros_like(start), outer / (3 * cubic), slope / outer])
    width = np.diff(x)[:, None]
    offsets = np.where((offsets >= 0) & (offsets <= width), offsets, 0.0)
    heights = ((cubic * offsets + square) * offsets + slope) * offsets + start
    places = (x[:-1, None] + offsets).reshape(-1, len(losses))
    flat = heights.reshape(-1, len(losses))
    best, copies = flat.argmin(axis=0), np.arange(len(losses))
    lowest = means.argmin(axis=1)
    good = (lowest > 0) & (lowest < len(sizes) - 1)
    return (
        np.where(good, places[best, copies], copy_ends(sizes, lowest)),
        copies_within(np.where(good, np.exp(flat[best, copies]), math.nan), means),
    )


AKIMA = CurveEstimator("akima", "Akima", akima, _in_copies)
