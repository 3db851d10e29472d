"""The optimum of a loss surface at a budget, in closed form: one surface has one.

With training FLOPs C = D exp(h) N^s, which C = 6 N D is for s = 1 and h = log 6, the surface
L = E + A / N^alpha + B / D^beta is lowest at N^(alpha + s beta) = alpha A (C exp(-h))^beta /
(s beta B), so that N ~ C^a and D ~ C^b with a = beta / (alpha + s beta) and b = 1 - s a
(arXiv 2203.15556, equation 4, for s = 1).

Axes: R surfaces.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from isoflop.config import Frozen
from isoflop.fit.minimum import Floats


class FlopsLaw(Frozen):
    """Training FLOPs per token as a power of the size: C / D = exp(height) N^slope."""

    slope: float
    height: float
    misfit: float = 0.0
    """Largest absolute log of a run's FLOPs per token over the law's."""

    @classmethod
    def of_runs(
        cls, parameters: ArrayLike, tokens: ArrayLike, training_flops: ArrayLike
    ) -> FlopsLaw:
        """Return the law through runs, by least squares; of one size, with slope 1."""
        n, d, c = (
            np.log(np.asarray(column, dtype=np.float64))
            for column in (parameters, tokens, training_flops)
        )
        if len(np.unique(n)) < 2:
            slope, height = 1.0, float(np.mean(c - d - n))
        else:
            slope, height = np.polyfit(n, c - d, 1).tolist()
        misfit = float(np.abs(c - d - slope * n - height).max())
        return cls(slope=slope, height=height, misfit=misfit)

    def flops(self, parameters: float, tokens: float) -> float:
        """Return C of a size and number of tokens."""
        return float(tokens * math.exp(self.height) * parameters**self.slope)

    def tokens(self, budget_flops: float, parameters: ArrayLike) -> Floats:
        """Return D of each size at a budget."""
        n = np.asarray(parameters, dtype=np.float64)
        return np.asarray(budget_flops / (math.exp(self.height) * n**self.slope))


def compute_exponents(
    alpha: ArrayLike, beta: ArrayLike, slope: float = 1.0
) -> tuple[Floats, Floats]:
    """Return a and b of the optimal N ~ C^a and D ~ C^b."""
    one, two = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = two / (one + slope * two)
    return a, 1 - slope * a


def surface_optima(
    surfaces: ArrayLike, budget_flops: float, law: FlopsLaw
) -> tuple[Floats, Floats]:
    """Return log size (R,) and loss (R,) at the optimum of each surface at a budget.

    Both are NaN for a surface without a minimum: a term is zero, or an exponent or the law's slope
    not positive.

    Args:
        surfaces: (R, 5 or more), columns E, A, B, alpha, beta.
        budget_flops: C, training FLOPs.
        law: FLOPs per token by size.
    """
    e, a, b, alpha, beta = np.atleast_2d(np.asarray(surfaces, dtype=np.float64)).T[:5]
    scaled = math.log(budget_flops) - law.height
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steepness = alpha + law.slope * beta
        ratio = np.log(alpha) + np.log(a) - np.log(law.slope * beta) - np.log(b)
        log_n = (ratio + beta * scaled) / steepness
        log_d = scaled - law.slope * log_n
        loss = e + np.exp(np.log(a) - alpha * log_n) + np.exp(np.log(b) - beta * log_d)
    whole = np.isfinite(log_n) & np.isfinite(loss)
    return np.where(whole, log_n, math.nan), np.where(whole, loss, math.nan)
