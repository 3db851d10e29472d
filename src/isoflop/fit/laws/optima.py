"""Power laws y = k x^a, and how the optimal size grows with compute: by minima, or by a surface.

Axes: R draws, M budgets, K surfaces.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from isoflop.config import Frozen
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.curves.systematic import SURE, Systematic
from isoflop.fit.intervals import FEWEST_DRAWS, Floats, WithError, draws_interval
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.minima.minimum import Status
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.sample import SurfaceSample
from isoflop.fit.surfaces.surface import surface_optima


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


class FittedLaw(Frozen):
    """Optimal size N = k C^a: a surface's by its closed form, else through minima (approach 2)."""

    estimator: Estimator
    status: Status
    message: str
    k: float | None = None
    a: Estimate | None = None
    systematic: float | None = None
    """By how much the interval of a is wider on either side: what the estimator gets wrong without
    noise. None where nothing tells it, and of a surface."""
    interval_note: str | None = None
    """Over which budgets the interval is, where that is not all, or why there is none."""


def surface_law(sample: SurfaceSample, exponent: Estimate | None) -> FittedLaw:
    """Return the law of a surface's optimum, whose exponent is that of the surface."""
    fit = sample.fit
    known = FittedLaw(estimator=fit.estimator, status=fit.status, message=fit.message)
    if sample.surface is None:
        return known
    log_n, _ = surface_optima([sample.surface.row], 1.0, sample.law)
    if not math.isfinite(log_n[0]):
        return known
    return known.model_copy(update={"k": math.exp(log_n[0]), "a": exponent})


def minimum_law(
    found: Sequence[CurveMinimum], draws: CurveDraws, biases: Mapping[float, Systematic | None]
) -> FittedLaw:
    """Return the law through the minima of one estimator, with an interval of its exponent.

    The interval is over the budgets whose noise is known, two or more, and wider by what the
    estimator gets wrong without noise: its bias at each budget.
    """
    points = {one.budget_flops: one.parameters for one in found if one.parameters is not None}
    law = fit_power_law(list(points), list(points.values()))
    known = FittedLaw(estimator=found[0].estimator, status=law.status, message=law.message)
    if law.k is None or law.a is None:
        return known
    value, level = law.a.value, draws.settings.level
    drawn = {
        one.budget_flops: copies[0]
        for one in found
        if one.interval is not None
        and (copies := draws.minima(one.variant, one.budget_flops, one.estimator)) is not None
    }
    slopes = drawn_slopes(list(drawn), list(drawn.values()))
    wider = _law_systematic(list(points), biases)
    ends, note = None, None
    missing = f"{len(points) - len(drawn)} of {len(points)} budgets"
    if len(drawn) < 2:
        # By what is systematic alone, as that of a minimum without noise.
        ends = None if wider is None else (value, value)
        what = "no interval" if wider is None else "no noise in the interval"
        note = f"{what}: nothing tells how far runs of {missing} scatter"
    elif np.isfinite(slopes).sum() < FEWEST_DRAWS:
        note = "no interval: hardly any noisy copy of the minima has a law"
    else:
        ends = draws_interval(value, slopes, level=level).ends
        if len(drawn) < len(points):
            note = f"the interval leaves out {missing}, where nothing tells how far runs scatter"
    low, high = (None, None) if ends is None else (ends[0] - (wider or 0), ends[1] + (wider or 0))
    return known.model_copy(
        update={
            "k": law.k.value,
            "a": Estimate(value=value, low=low, high=high),
            "systematic": wider,
            "interval_note": note,
        }
    )


def drawn_slopes(budgets: Sequence[float], log_sizes: Sequence[ArrayLike]) -> Floats:
    """Return the exponent of each noisy copy (R,) over its budgets with a minimum; NaN of one."""
    if len(budgets) < 2:
        return np.empty(0)
    y = np.stack([np.asarray(one, dtype=np.float64) for one in log_sizes], axis=1)
    there = np.isfinite(y)
    count = there.sum(axis=1, keepdims=True)
    x = np.where(there, np.log(budgets), 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        centred = np.where(there, x - x.sum(axis=1, keepdims=True) / count, 0.0)
        slopes = (centred * np.where(there, y, 0.0)).sum(axis=1) / (centred**2).sum(axis=1)
    return np.where(count[:, 0] >= 2, slopes, math.nan)


def _law_systematic(
    budgets: Sequence[float], biases: Mapping[float, Systematic | None]
) -> float | None:
    """Return how far the exponent is off without noise: a line through the minima's biases."""
    known = [one for budget in budgets if (one := biases.get(budget)) is not None]
    if len(known) < len(budgets):
        return None
    x = np.log(budgets)
    weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
    if len({len(one.log_sizes) for one in known}) > 1:
        # Told by different surfaces, so that signs do not go together.
        bias = float(np.abs(weights) @ [np.abs(one.log_sizes).max() for one in known])
    else:
        bias = float(np.abs(weights @ np.stack([one.log_sizes for one in known])).max())
    return SURE * bias + float(np.abs(weights) @ [one.scatter_log_size for one in known])
