"""The loss surface L = E + A / N^alpha + B / D^beta (arXiv 2203.15556, approach 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize_scalar

from isoflop.config import Frozen
from isoflop.fit.minimum import (
    Floats,
    Minimum,
    Status,
    refused_at_edge,
    size_means,
    too_few,
)

SurfaceEstimator = Literal["surface", "variable_projection"]

SEARCH_POINTS = 2001
"""Sizes, even in log, among which the surface's minimum is bracketed before refinement."""

INTERPOLATED_SIZES = 20
"""Tokens of at most so many sizes are interpolated along a budget; of more they are smoothed."""


class Surface(Frozen):
    """Coefficients of L = E + A / N^alpha + B / D^beta; N parameters, D tokens, L nats."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

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
    tokens: ArrayLike | Callable[[Floats], Floats],
) -> Minimum:
    """Return the minimum of a fitted surface along one budget.

    Along a budget C = c(N) * D the tokens are a function of the size. They are either given as
    that function, or taken from the runs: log tokens interpolated over log parameters by a
    curve that is exact where D is a power of N. The search never leaves the sizes
    measured at the budget. A surface that is ill-conditioned or at a bound is used where it exists,
    and the message says so: its coefficients trade off along directions in which the loss at the
    measured sizes hardly changes.

    Args:
        fit: the surface.
        parameters: size of each run at the budget.
        losses: their losses, which say whether the budget's minimum is bracketed at all.
        tokens: tokens of each run, or a function from parameters to tokens.
    """
    sizes, means = size_means(parameters, losses)
    if fit.surface is None:
        return Minimum(estimator=fit.estimator, status=fit.status, message=fit.message)
    if len(sizes) < 3:
        return too_few(fit.estimator, len(sizes), 3)
    refused = refused_at_edge(fit.estimator, sizes, means)
    if refused is not None:
        return refused
    surface = fit.surface
    tokens_at = tokens if callable(tokens) else tokens_along_budget(parameters, tokens)

    def loss_at(x: float) -> float:
        n = np.array([math.exp(x)])
        return float(surface.loss(n, tokens_at(n))[0])

    grid = np.linspace(math.log(sizes[0]), math.log(sizes[-1]), SEARCH_POINTS)
    heights = surface.loss(np.exp(grid), tokens_at(np.exp(grid)))
    best = int(np.argmin(heights))
    if best in (0, len(grid) - 1):
        side: Literal["smaller", "larger"] = "smaller" if best == 0 else "larger"
        return Minimum(
            estimator=fit.estimator,
            status="edge",
            side=side,
            message=f"the surface is lowest at an end of the sizes measured, {sizes[0]:,.0f} to "
            f"{sizes[-1]:,.0f} parameters; measure {side} ones",
        )
    found = minimize_scalar(
        loss_at,
        bounds=(grid[best - 1], grid[best + 1]),
        method="bounded",
        options={"xatol": 1e-10},
    )
    return Minimum(
        estimator=fit.estimator,
        status="converged",
        parameters=math.exp(float(found.x)),
        loss=float(found.fun),
        message=f"minimum along the budget: {fit.message}",
    )


def tokens_along_budget(parameters: ArrayLike, tokens: ArrayLike) -> Callable[[Floats], Floats]:
    """Return tokens as a function of size along a budget, in logs.

    Through the few sizes of a ladder, a monotone cubic. Runs of a table are grouped to budgets
    within a tolerance, so that their tokens scatter; through many of them the curve would follow
    the scatter, and the surface's minimum along it with it: there it is a parabola.
    """
    sizes, log_tokens = size_means(parameters, np.log(np.asarray(tokens, dtype=np.float64)))
    curve: Callable[[Floats], Floats]
    if len(sizes) > INTERPOLATED_SIZES:
        curve = Polynomial.fit(np.log(sizes), log_tokens, deg=2)
    else:
        curve = PchipInterpolator(np.log(sizes), log_tokens)

    def tokens_at(n: Floats) -> Floats:
        return np.asarray(np.exp(curve(np.log(n))), dtype=np.float64)

    return tokens_at
