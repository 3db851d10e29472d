"""The loss surface L = E + A / N^alpha + B / D^beta, and its optimum at a budget, in closed form.

With training FLOPs C = D exp(h) N^s, which C = 6 N D is for s = 1 and h = log 6, the surface is
lowest at N^(alpha + s beta) = alpha A (C exp(-h))^beta / (s beta B), so that N ~ C^a and D ~ C^b
with a = beta / (alpha + s beta) and b = 1 - s a (arXiv 2203.15556, approach 3, and equation 4 for
s = 1).

Axes: R surfaces.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import Minimum, Status, at_edge, refused, refused_outside
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.settings import Estimator
from isoflop.fit.tables.frame import run_flops

SCATTERS = 4.0
"""Root mean squares of a surface's misses by which its minimum may lie beyond a curve's losses."""
LARGEST_SCATTER = 0.01
"""Share of the loss up to which these count: runs of one recipe scatter by less."""


class Surface(Frozen):
    """Coefficients of L = E + A / N^alpha + B / D^beta; N parameters, D tokens, L nats."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    @property
    def row(self) -> tuple[float, float, float, float, float]:
        """E, A, B, alpha and beta, a row of surfaces that are handled together."""
        return self.E, self.A, self.B, self.alpha, self.beta

    def loss(self, parameters: ArrayLike, tokens: ArrayLike) -> Floats:
        """Return the loss at each size and number of tokens, nats per token."""
        return losses_at(np.array(self.row), parameters, tokens)


class SurfaceFit(Frozen):
    """A fitted surface, or why there is none."""

    estimator: Estimator
    status: Status
    message: str
    surface: Surface | None = None
    """For `converged`, and for `at_bound` and `ill_conditioned` where it is still the best curve
    through the runs, though its coefficients are not to be quoted."""
    points: int
    condition: float | None = None
    """Condition number of the Jacobian with unit columns, in (log E, log A, log B, alpha, beta)."""
    residual: float | None = None
    """Root mean square of log fitted loss - log loss."""
    equal_exponents: bool = False
    """Whether alpha and beta were held equal."""
    delta: float | None = None
    """Of the Huber loss on log loss; None for least squares on the loss."""


class FlopsLaw(Frozen):
    """Training FLOPs per token as a power of the size: C / D = exp(height) N^slope."""

    slope: float
    height: float
    misfit: float = 0.0
    """Largest absolute log of a run's FLOPs per token over the law's."""

    @classmethod
    def of_runs(cls, rows: pd.DataFrame) -> FlopsLaw:
        """Return the law through runs, by least squares; of one size, with slope 1."""
        n, d = np.log(rows["parameters"].to_numpy(float)), np.log(rows["tokens"].to_numpy(float))
        per_token = np.log(run_flops(rows)) - d
        if len(np.unique(n)) < 2:
            slope, height = 1.0, float(np.mean(per_token - n))
        else:
            slope, height = np.polyfit(n, per_token, 1).tolist()
        misfit = float(np.abs(per_token - slope * n - height).max())
        return cls(slope=slope, height=height, misfit=misfit)

    def flops(self, parameters: float, tokens: float) -> float:
        """Return C of a size and number of tokens."""
        return float(tokens * math.exp(self.height) * parameters**self.slope)

    def tokens(self, budget_flops: float, parameters: ArrayLike) -> Floats:
        """Return D of each size at a budget."""
        n = np.asarray(parameters, dtype=np.float64)
        return np.asarray(budget_flops / (math.exp(self.height) * n**self.slope))


def losses_at(surfaces: Floats, parameters: ArrayLike, tokens: ArrayLike) -> Floats:
    """Return the loss of one surface (5,) at sizes and tokens, or of many, (R, 5 or more)."""
    e, a, b, alpha, beta = surfaces.T[:5]
    n, d = (np.asarray(one, dtype=np.float64) for one in (parameters, tokens))
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(e + a * n**-alpha + b * d**-beta)


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
    """Return log size (R,) and loss (R,) at the optimum of surfaces (R, 5 or more) at a budget.

    Both are NaN for a surface without a minimum: a term is zero, or an exponent or the law's slope
    not positive. `law` is that of FLOPs per token by size.
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


def surface_minimum(
    fit: SurfaceFit, parameters: ArrayLike, losses: ArrayLike, budget_flops: float, law: FlopsLaw
) -> Minimum:
    """Return the minimum of a fitted surface along one budget, in closed form.

    It is used where it lies within the sizes measured at the budget. A surface that is
    ill-conditioned or at a bound is used where it exists, and the message says so: its coefficients
    trade off along directions in which the loss at the measured sizes hardly changes. The losses of
    the budget's runs say whether its minimum is bracketed at all.
    """
    sizes, means = size_means(parameters, losses)
    if fit.surface is None:
        return Minimum(estimator=fit.estimator, status=fit.status, message=fit.message)
    refusal = refused(fit.estimator, sizes, means, 3)
    if refusal is not None:
        return refusal
    log_n, loss = (float(one[0]) for one in surface_optima([fit.surface.row], budget_flops, law))
    if not math.isfinite(log_n):
        # Without a term that falls with the size, smaller is better; else larger.
        log_n = math.inf if fit.surface.A > 0 else -math.inf
    if not math.log(sizes[0]) < log_n < math.log(sizes[-1]):
        where = (
            f"the surface is lowest at or beyond an end of the sizes measured, {sizes[0]:,.0f} to "
            f"{sizes[-1]:,.0f} parameters"
        )
        return at_edge(fit.estimator, where, smaller=log_n <= math.log(sizes[0]))
    found = Minimum(
        estimator=fit.estimator,
        status="converged",
        parameters=math.exp(log_n),
        loss=loss,
        message=f"minimum along the budget: {fit.message}",
    )
    # The few sizes of a flat curve may differ by less than runs scatter about the surface.
    scatter = SCATTERS * (fit.residual or 0.0)
    return refused_outside(found, means, slack=loss * min(scatter, LARGEST_SCATTER))
