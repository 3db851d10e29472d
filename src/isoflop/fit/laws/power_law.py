"""Power laws y = k * x^a, such as the optimal size or the loss against compute."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from isoflop.config import Frozen
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.intervals import WithError
from isoflop.fit.minima.minimum import Status


class PowerLaw(Frozen):
    """y = k * x^a, or why there is none."""

    status: Status
    message: str
    k: Estimate | None = None
    a: Estimate | None = None
    log_residual: float | None = None
    """Standard deviation of log y about the line; None with fewer than three points."""


def fit_power_law(x: ArrayLike, y: ArrayLike, *, level: float = LEVEL) -> PowerLaw:
    """Fit y = k * x^a to positive numbers by least squares of log y on log x, each counting alike.

    The intervals of k and a are Student's, by the scatter of log y about the line, with points
    taken to scatter independently and alike. Two points leave no scatter, so that the ends are
    missing.
    """
    u, v = np.log(np.asarray(x, dtype=np.float64)), np.log(np.asarray(y, dtype=np.float64))
    distinct = len(np.unique(u))
    if distinct < 2:
        message = f"{distinct} distinct values of x, at least 2 needed"
        return PowerLaw(status="too_few", message=message)
    du, dv = u - u.mean(), v - v.mean()
    slope = float(du @ dv / (du @ du))
    log_k = float(v.mean() - slope * u.mean())
    k, a = Estimate(value=math.exp(log_k)), Estimate(value=slope)
    free = len(u) - 2
    message = f"line through {len(u)} points in log space"
    if not free:
        message += "; two points leave nothing to check the law with"
        return PowerLaw(status="converged", message=message, k=k, a=a)
    residual = math.sqrt(float(np.sum((dv - slope * du) ** 2)) / free)
    spread = float(np.sum(du**2))
    error_log_k = residual * math.sqrt(1 / len(u) + float(u.mean()) ** 2 / spread)
    of_log_k = WithError(value=log_k, error=error_log_k, degrees_of_freedom=free)
    of_a = WithError(value=slope, error=residual / math.sqrt(spread), degrees_of_freedom=free)
    low, high = map(math.exp, of_log_k.interval(level).ends)
    return PowerLaw(
        status="converged",
        message=message,
        k=k.model_copy(update={"low": low, "high": high}),
        a=of_a.interval(level),
        log_residual=residual,
    )
