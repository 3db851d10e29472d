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
    copy_ends,
    refused,
    refused_outside,
    within,
)
from isoflop.fit.minima.sizes import size_means

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
    refusal = refused("akima", sizes, means, AKIMA_SIZES)
    if refusal is not None:
        return refusal
    log_size, loss = _lowest(sizes, means[None])
    found = Minimum(
        estimator="akima",
        status="converged",
        parameters=math.exp(log_size[0]),
        loss=float(loss[0]),
        message=f"interpolation of {len(sizes)} sizes",
    )
    return refused_outside(found, means)


def _in_copies(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return what `akima` says of each row of `losses` (R, P), as `CurveEstimator` does."""
    sizes, means = size_means(parameters, losses)
    if len(sizes) < AKIMA_SIZES:
        none = np.full(len(losses), math.nan)
        return none, none
    # A copy may fall below zero where losses are small against their noise.
    log_sizes, lowest = _lowest(sizes, np.maximum(means, 1e-12 * means.max()))
    best = means.argmin(axis=1)
    inside = (best > 0) & (best < len(sizes) - 1)
    return (
        np.where(inside, log_sizes, copy_ends(sizes, best)),
        np.where(inside & within(lowest, means), lowest, math.nan),
    )


def _lowest(sizes: Floats, means: Floats) -> tuple[Floats, Floats]:
    """Return log size and loss (R,) at the lowest point of curves through means (R, S)."""
    x = np.log(sizes)
    cubic, square, slope, start = Akima1DInterpolator(x, np.log(means).T).c
    # Where the slope of each piece is zero, if that is within the piece; and the points.
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(square**2 - 3 * cubic * slope)
        # Written so that a piece of hardly any third power loses no digits.
        outer = -(square + np.copysign(root, square))
        offsets = np.stack([np.zeros_like(start), outer / (3 * cubic), slope / outer])
    width = np.diff(x)[:, None]
    offsets = np.where((offsets >= 0) & (offsets <= width), offsets, 0.0)
    heights = ((cubic * offsets + square) * offsets + slope) * offsets + start
    places = (x[:-1, None] + offsets).reshape(-1, len(means))
    flat = heights.reshape(-1, len(means))
    best, copies = flat.argmin(axis=0), np.arange(len(means))
    return places[best, copies], np.exp(flat[best, copies])


AKIMA = CurveEstimator("akima", "Akima", akima, _in_copies)
