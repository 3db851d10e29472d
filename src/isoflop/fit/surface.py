"""The loss surface L = E + A / N^alpha + B / D^beta (arXiv 2203.15556, approach 3)."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from isoflop.config import Frozen
from isoflop.fit.minimum import (
    Floats,
    Minimum,
    Status,
    refused_at_edge,
    refused_outside,
    too_few,
)
from isoflop.fit.optimum import FlopsLaw, surface_optima
from isoflop.fit.sizes import size_means

SurfaceEstimator = Literal["surface", "variable_projection"]

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
        n = np.asarray(parameters, dtype=np.float64)
        d = np.asarray(tokens, dtype=np.float64)
        return np.asarray(self.E + self.A * n**-self.alpha + self.B * d**-self.beta)


class SurfaceFit(Frozen):
    """A fitted surface, or why there is none."""

    estimator: SurfaceEstimator
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


def surface_minimum(
    fit: SurfaceFit,
    parameters: ArrayLike,
    losses: ArrayLike,
    budget_flops: float,
    law: FlopsLaw,
) -> Minimum:
    """Return the minimum of a fitted surface along one budget, in closed form.

    It is used where it lies within the sizes measured at the budget. A surface that is
    ill-conditioned or at a bound is used where it exists, and the message says so: its coefficients
    trade off along directions in which the loss at the measured sizes hardly changes.

    Args:
        fit: the surface.
        parameters: size of each run at the budget.
        losses: their losses, which say whether the budget's minimum is bracketed at all.
        budget_flops: C, training FLOPs.
        law: FLOPs per token by size, of the variant's runs.
    """
    sizes, means = size_means(parameters, losses)
    if fit.surface is None:
        return Minimum(estimator=fit.estimator, status=fit.status, message=fit.message)
    if len(sizes) < 3:
        return too_few(fit.estimator, len(sizes), 3)
    refused = refused_at_edge(fit.estimator, sizes, means)
    if refused is not None:
        return refused
    log_n, loss = (float(one[0]) for one in surface_optima([fit.surface.row], budget_flops, law))
    if not math.isfinite(log_n):
        # Without a term that falls with the size, smaller is better; else larger.
        log_n = math.inf if fit.surface.A > 0 else -math.inf
    if not math.log(sizes[0]) < log_n < math.log(sizes[-1]):
        side: Literal["smaller", "larger"] = "smaller" if log_n <= math.log(sizes[0]) else "larger"
        return Minimum(
            estimator=fit.estimator,
            status="edge",
            side=side,
            message=f"the surface is lowest at or beyond an end of the sizes measured, "
            f"{sizes[0]:,.0f} to {sizes[-1]:,.0f} parameters; measure {side} ones",
        )
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
