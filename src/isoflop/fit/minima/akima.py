"""The minimum by Akima interpolation of log loss over log parameters (arXiv 2406.19146)."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import MANY_SIZES, CurveEstimator
from isoflop.fit.minima.sizes import size_means


def lowest(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return log size and loss (R,) where Akima's curves through the means of sizes are lowest.

    The runs of a size are averaged first, since the curve passes through every point. It takes five
    sizes: a slope rests on two neighbours to either side.
    """
    sizes, means = size_means(parameters, losses)
    # A copy may fall below zero where losses are small against their noise.
    means = np.maximum(means, 1e-12 * means.max())
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


def _through(sizes: Floats, _: int) -> str:
    return f"interpolation of {len(sizes)} sizes"


AKIMA = CurveEstimator("akima", "Akima", MANY_SIZES, lowest, _through)
