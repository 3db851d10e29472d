"""Values with their uncertainty, intervals from draws, and the Welch interval of a difference."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from scipy import special

from isoflop.estimate import LEVEL, Estimate
from isoflop.frozen import Frozen

FEWEST_DRAWS = 10
"""Copies of the runs that have a value, below which they give no interval."""


class WithError(Frozen):
    """A value with its standard error and the degrees of freedom that the error rests on."""

    value: float
    error: float = Field(ge=0)
    degrees_of_freedom: float = Field(gt=0)

    def interval(self, level: float = LEVEL) -> Estimate:
        """Return Student's interval of the value."""
        half = float(special.stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.error
        return Estimate(
            value=self.value, low=self.value - half, high=self.value + half, level=level
        )

    def p_below(self, limit: float = 0.0) -> float:
        """Return the one-sided p-value for a value below `limit`: small where it is below."""
        if self.error == 0:
            return float(self.value >= limit)
        return float(special.stdtr(self.degrees_of_freedom, (self.value - limit) / self.error))

    def p_above(self, limit: float = 0.0) -> float:
        """Return the one-sided p-value for a value above `limit`."""
        negative = self.model_copy(update={"value": -self.value})
        return negative.p_below(-limit)


def mean_estimate(values: ArrayLike) -> WithError:
    """Return the mean of two or more independent values with its standard error."""
    found = np.asarray(values, dtype=np.float64)
    return WithError(
        value=float(found.mean()),
        error=float(found.std(ddof=1)) / math.sqrt(len(found)),
        degrees_of_freedom=len(found) - 1,
    )


def percentile_interval(value: float, draws: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the interval between two quantiles of a value's draws.

    It always holds the value: where all of these draws lie beside it, the copies are moved to one
    side, and the interval reaches from them to the value rather than leave out either.

    Args:
        value: what the runs as they are give.
        draws: the same of resampled or simulated runs; NaN where one of them gave no value.
        level: share of the draws that lie between the quantiles.

    Raises:
        ValueError: no draw has a value.
    """
    drawn = np.asarray(draws, dtype=np.float64)
    usable = drawn[np.isfinite(drawn)]
    if not usable.size:
        raise ValueError("the statistic has no value on any resample of the runs")
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Estimate(
        value=value,
        low=min(low, value),
        high=max(high, value),
        level=level,
        resamples=len(usable),
        refused=len(drawn) - len(usable),
    )


def basic_interval(value: float, draws: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the basic bootstrap interval: quantiles of the draws, reflected about the value.

    For a value that noise moves to one side: draws lie as far to that side of the value as the
    value lies of the truth. (Davison and Hinkley, Bootstrap Methods, section 2.4.) Arguments and
    errors are those of `percentile_interval`.
    """
    found = percentile_interval(value, draws, level=level)
    # The plain quantiles hold the value, and so does their reflection.
    low, high = found.ends
    return found.model_copy(update={"low": 2 * value - high, "high": 2 * value - low})


def difference(first: WithError, second: WithError) -> WithError:
    """Return `first` - `second` for unequal variances (Welch, Satterthwaite)."""
    variances = (first.error**2, second.error**2)
    total = sum(variances)
    freedom = min(first.degrees_of_freedom, second.degrees_of_freedom)
    if total > 0:
        freedom = 1 / (
            (variances[0] / total) ** 2 / first.degrees_of_freedom
            + (variances[1] / total) ** 2 / second.degrees_of_freedom
        )
    return WithError(
        value=first.value - second.value, error=math.sqrt(total), degrees_of_freedom=freedom
    )


def welch(first: WithError, second: WithError, *, level: float = LEVEL) -> Estimate:
    """Return the interval of `first` - `second`; see `difference`."""
    return difference(first, second).interval(level)
