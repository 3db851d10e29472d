"""What an estimator of one curve gets wrong without any noise: its systematic error.

A parabola through an asymmetric valley, or through sizes that are off its centre, is biased (arXiv
2603.22339), and so is an interpolation between sizes that lie far apart. How far is told by a
surface, whose own optimum is known in closed form: the estimator is given the surface's losses at
the very same runs. Where no surface can be had, a polynomial of a higher degree stands in.

Axes: K surfaces.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.interpolate import BarycentricInterpolator

from isoflop.fit.minimum import Floats, Minimum, akima, fit_parabola, parabola
from isoflop.fit.moved_runs import LARGEST_SCATTER, scatter
from isoflop.fit.optimum import FlopsLaw, surface_optima
from isoflop.fit.sizes import size_means
from isoflop.fit.surface import Surface, SurfaceFit

SURE = 1.1
"""How much wider than the bias itself an interval is made: a surface is known only so well."""
LEAST_STEEPNESS = 0.4
"""Of alpha + beta. Published surfaces have 0.5 and more."""
INTERPOLATED = 5
"""Sizes nearest the lowest one that a polynomial of higher degree goes through."""
COMPARED = 4
"""Fewest sizes that tell a parabola from a curve of higher degree."""
GRID = 401


@dataclass(frozen=True)
class Systematic:
    """Bias of a minimum by each of K surfaces, with what no surface tells on top."""

    losses: Floats
    """Minimum loss less the true one, (K,), nats per token."""
    log_sizes: Floats
    """Log of the minimum's size over the true one, (K,)."""
    scatter_loss: float = 0.0
    """How far runs that were not moved to their budget may move the loss."""
    scatter_log_size: float = 0.0

    @property
    def loss(self) -> float:
        """How far an interval of the loss is widened on either side."""
        return SURE * float(np.abs(self.losses).max()) + self.scatter_loss

    @property
    def log_size(self) -> float:
        """How far an interval of the log of the size is widened on either side."""
        return SURE * float(np.abs(self.log_sizes).max()) + self.scatter_log_size


def known_surfaces(fits: Sequence[SurfaceFit]) -> tuple[Surface, ...]:
    """Return the surfaces that biases are told by.

    Converged ones, or else those whose coefficients the runs do not tell apart: they follow the
    curve, and that is all that is asked of them.
    """
    converged = tuple(f.surface for f in fits if f.surface and f.status == "converged")
    return converged or tuple(f.surface for f in fits if f.surface)


def systematic(
    rows: pd.DataFrame,
    minimum: Minimum,
    surfaces: Sequence[Surface],
    law: FlopsLaw,
) -> Systematic | None:
    """Return the systematic error of a minimum by the parabola or Akima; None if nothing tells it.

    Where the estimator has no minimum on the losses of a surface, it is its distance from the
    surface's optimum.

    Args:
        rows: runs of the curve, moved to their budget.
        minimum: of these, converged.
        surfaces: through all runs of the variant.
        law: of its FLOPs per token.
    """
    assert minimum.loss is not None
    assert minimum.parameters is not None
    n, d, y = (rows[one].to_numpy(dtype=np.float64) for one in ("parameters", "tokens", "loss"))
    find = parabola if minimum.estimator == "parabola" else akima
    log_n, loss = surface_optima(
        [one.row for one in surfaces] or np.empty((0, 5)), float(rows["budget_flops"].iloc[0]), law
    )
    biases = []
    for surface, true_size, true_loss in zip(surfaces, log_n.tolist(), loss.tolist(), strict=True):
        found = find(n, surface.loss(n, d))
        at_loss, at_size = found.loss, found.parameters
        if at_loss is None or at_size is None:
            at_loss, at_size = minimum.loss, minimum.parameters
        biases.append((at_loss - true_loss, math.log(at_size) - true_size))
    known = np.array([one for one in biases if np.isfinite(one).all()])
    if not len(known):
        found_one = _by_polynomial(n, y, minimum)
        if found_one is None:
            return None
        known = np.array([found_one])
    return Systematic(known[:, 0], known[:, 1], *_of_scatter(rows, n, y))


def _by_polynomial(n: Floats, y: Floats, minimum: Minimum) -> tuple[float, float] | None:
    """Return loss and log size of a minimum less those of a polynomial through sizes near it."""
    sizes, means = size_means(n, y)
    if len(sizes) < COMPARED:
        return None
    assert minimum.loss is not None
    assert minimum.parameters is not None
    best = int(np.argmin(means))
    near = np.sort(np.argsort(np.abs(np.log(sizes / sizes[best])))[:INTERPOLATED])
    x = np.log(sizes[near])
    grid = np.linspace(math.log(sizes[best - 1]), math.log(sizes[best + 1]), GRID)
    heights = BarycentricInterpolator(x, means[near])(grid)
    at = int(np.argmin(heights))
    return minimum.loss - float(heights[at]), math.log(minimum.parameters) - float(grid[at])


def _of_scatter(rows: pd.DataFrame, n: Floats, y: Floats) -> tuple[float, float]:
    """Return how far runs off their budget may move the loss and the log size of a minimum.

    At the minimum the loss falls by curvature / (alpha + beta) for each unit of log tokens, so that
    runs lie at most that times their scatter off the curve.
    """
    off = scatter(rows)
    if off == 0:
        return 0.0, 0.0
    assert off <= LARGEST_SCATTER
    curve = fit_parabola(n, y)
    reach = math.log(curve.largest / curve.smallest) / 2
    return 2 * max(0.0, curve.curvature) / LEAST_STEEPNESS * off, 2 * off / LEAST_STEEPNESS / reach
