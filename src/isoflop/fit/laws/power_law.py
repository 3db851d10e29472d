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
    k: float | None = None
    a: float | None = None
    points: int
    log_residual: float | None = None
    """Standard deviation of log y about the line; None with fewer than three points."""

    def at(self, x: float) -> float:
        """Return k * x^a.

        Raises:
            ValueError: the fit was refused.
        """
        if self.k is None or self.a is None:
            raise ValueError(f"there is no power law to evaluate: {self.message}")
        return float(self.k * x**self.a)


def fit_power_law(x: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit y = k * x^a by least squares of log y on log x, every point counting the same.

    Raises:
        ValueError: lengths differ, or a value is not positive and finite.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.ndim != 1 or xs.shape != ys.shape:
        raise ValueError(f"x and y have shapes {xs.shape} and {ys.shape}; expected equal lengths")
    for name, values in (("x", xs), ("y", ys)):
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(f"{name} is {values.tolist()}; a power law needs positive numbers")
    distinct = len(np.unique(xs))
    if distinct < 2:
        return PowerLaw(
            status="too_few",
            points=len(xs),
            message=f"{distinct} distinct values of x, at least 2 needed",
        )
    u, v = np.log(xs), np.log(ys)
    du, dv = u - u.mean(), v - v.mean()
    a = float(du @ dv / (du @ du))
    log_k = float(v.mean() - a * u.mean())
    free = len(xs) - 2
    residual = math.sqrt(float(np.sum((dv - a * du) ** 2)) / free) if free else None
    note = "" if free else "; two points leave nothing to check the law with"
    return PowerLaw(
        status="converged",
        k=math.exp(log_k),
        a=a,
        points=len(xs),
        log_residual=residual,
        message=f"line through {len(xs)} points in log space{note}",
    )


def power_law_intervals(
    law: PowerLaw, x: ArrayLike, *, level: float = LEVEL
) -> tuple[Estimate, Estimate]:
    """Return k and a with Student's intervals, by the scatter of log y about the line.

    Points are taken to scatter independently and alike. Two points leave no scatter, so that the
    ends are missing.

    Args:
        law: as `fit_power_law` found it.
        x: the values that it was fitted to.
        level: probability that the intervals are to hold.

    Raises:
        ValueError: the fit was refused.
    """
    if law.k is None or law.a is None:
        raise ValueError(f"there is no power law to tell intervals of: {law.message}")
    if law.log_residual is None:
        return Estimate(value=law.k), Estimate(value=law.a)
    u = np.log(np.asarray(x, dtype=np.float64))
    spread = float(np.sum((u - u.mean()) ** 2))
    free = len(u) - 2
    error_log_k = law.log_residual * math.sqrt(1 / len(u) + float(u.mean()) ** 2 / spread)
    log_k = WithError(value=math.log(law.k), error=error_log_k, degrees_of_freedom=free)
    a = WithError(value=law.a, error=law.log_residual / math.sqrt(spread), degrees_of_freedom=free)
    low, high = log_k.interval(level).ends
    return (
        Estimate(value=law.k, low=math.exp(low), high=math.exp(high)),
        a.interval(level),
    )
