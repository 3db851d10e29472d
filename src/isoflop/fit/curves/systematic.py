"""What an estimator of one curve gets wrong without any noise: its systematic error.

A parabola through an asymmetric valley, or through sizes that are off its centre, is biased (arXiv
2603.22339), and so is an interpolation between sizes that lie far apart. How far is told by a
surface, whose own optimum is known in closed form: the estimator is given the surface's losses at
the very same runs. Where no surface can be had, curves of the exponents that are known from
elsewhere stand in, each fitted to the runs.

Axes: K surfaces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.fit.curves.moving import LARGEST_SCATTER, scatter
from isoflop.fit.intervals import Floats
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.parabola import fit_parabola
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.surfaces.surface import FlopsLaw, SurfaceFit, surface_optima

SURE = 1.1
"""How much wider than the bias itself an interval is made: a surface is known only so well."""
LEAST_STEEPNESS = 0.4
"""Of alpha + beta, that of the flattest of `EXPONENTS`."""
EXPONENTS = (0.2, 0.7)
"""Of curves that stand in for a surface, alpha and beta each: the range of published ones. Its
ends are the most lopsided valleys."""


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


def systematic(
    rows: pd.DataFrame, minimum: Minimum, fits: Iterable[SurfaceFit], law: FlopsLaw
) -> Systematic | None:
    """Return the systematic error of a minimum of one curve; None if nothing tells it.

    It is told by converged surfaces, or else by those whose coefficients the runs do not tell
    apart: they follow the curve, and that is all that is asked of them. Where the estimator has no
    minimum on the losses of a surface, it is its distance from the surface's optimum.

    Args:
        rows: runs of the curve, moved to their budget.
        minimum: of these, converged.
        fits: surfaces through all runs of the variant.
        law: of its FLOPs per token.
    """
    n, d, y = (rows[one].to_numpy(dtype=np.float64) for one in ("parameters", "tokens", "loss"))
    told = [fit for fit in fits if fit.surface]
    told = [fit for fit in told if fit.status == "converged"] or told
    surfaces = [fit.surface for fit in told if fit.surface]
    curves = []
    if surfaces:
        budget = float(rows["budget_flops"].iloc[0])
        log_n, loss = surface_optima([one.row for one in surfaces], budget, law)
        told_by = zip([one.loss(n, d) for one in surfaces], log_n, loss, strict=True)
        curves = [one for one in told_by if np.isfinite(one[1])]
    curves = curves or list(_shapes(n, y))
    if not curves:
        return None
    biases = []
    for on_curve, log_size, lowest in curves:
        found = CURVE_ESTIMATORS[minimum.estimator].find(n, on_curve)
        found = minimum if found.loss is None else found
        assert found.loss is not None
        assert found.parameters is not None
        biases.append((found.loss - lowest, math.log(found.parameters) - log_size))
    losses, log_sizes = np.transpose(biases)
    return Systematic(losses, log_sizes, *_of_scatter(rows, n, y))


def _shapes(n: Floats, y: Floats) -> Iterator[tuple[Floats, float, float]]:
    """Yield curves e + p / N^alpha + q N^beta, what a law is along a budget, fitted to runs.

    Each is its losses at the runs, and the log size and the loss of its optimum.
    """
    middle = float(np.log(n).mean())
    x = np.log(n) - middle
    for alpha, beta in itertools.product(EXPONENTS, repeat=2):
        terms = np.stack([np.ones_like(x), np.exp(-alpha * x), np.exp(beta * x)], axis=1)
        e, p, q = np.linalg.lstsq(terms, y, rcond=None)[0].tolist()
        if p <= 0 or q <= 0:
            continue
        at = math.log(alpha * p / (beta * q)) / (alpha + beta)
        lowest = e + p * math.exp(-alpha * at) + q * math.exp(beta * at)
        yield terms @ np.array([e, p, q]), at + middle, lowest


def _of_scatter(rows: pd.DataFrame, n: Floats, y: Floats) -> tuple[float, float]:
    """Return how far runs off their budget may move the loss and the log size of a minimum.

    At the minimum the loss falls by d2L/dx2 / (alpha + beta) per unit of log tokens, x = log N,
    so that runs lie at most that times their scatter off the curve. The size moves by the slope
    that two neighbours so far off to opposite sides give, over d2L/dx2.
    """
    off = scatter(rows)
    if off == 0:
        return 0.0, 0.0
    assert off <= LARGEST_SCATTER
    sizes, means = size_means(n, y)
    best = int(np.argmin(means))
    reach = math.log(sizes[best + 1] / sizes[best - 1]) / 2
    bend = 2 * max(0.0, fit_parabola(n, y).curvature)
    return bend * off / LEAST_STEEPNESS, 2 * off / LEAST_STEEPNESS / reach
