"""Values with their uncertainty, and the Welch interval of a difference."""

from __future__ import annotations

import math

from pydantic import Field
from scipy import stats

from isoflop.config import Frozen

LEVEL = 0.95


class Interval(Frozen):
    """A value and the interval that holds it with probability `level`."""

    value: float
    low: float
    high: float
    level: float = Field(default=LEVEL, gt=0, lt=1)
    resamples: int | None = None
    """Resamples that gave a value, where it comes from a bootstrap."""
    refused: int = 0
    """Resamples in which the statistic had no value, such as a minimum at an edge."""


class Estimate(Frozen):
    """A value with its standard error and the degrees of freedom that the error rests on."""

    value: float
    error: float = Field(ge=0)
    degrees_of_freedom: float = Field(gt=0)


def welch(first: Estimate, second: Estimate, *, level: float = LEVEL) -> Interval:
    """Return `first` - `second` with its interval for unequal variances (Welch, Satterthwaite)."""
    variances = (first.error**2, second.error**2)
    total = sum(variances)
    difference = first.value - second.value
    if total == 0:
        return Interval(value=difference, low=difference, high=difference, level=level)
    freedom = 1 / (
        (variances[0] / total) ** 2 / first.degrees_of_freedom
        + (variances[1] / total) ** 2 / second.degrees_of_freedom
    )
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(total)
    return Interval(value=difference, low=difference - half, high=difference + half, level=level)
