"""How much the seed alone changes a loss: standard deviations and their ratio."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from isoflop.config import Frozen
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.interval import percentile_interval
from isoflop.fit.minimum import Floats


class SpreadRatio(Frozen):
    """Ratio of two standard deviations, with an interval that assumes normality and one not."""

    ratio: float
    f_test: Estimate
    """Exact for normal losses; too narrow where single seeds stand far out."""
    bootstrap: Estimate
    """Percentiles over resampled seeds: no assumption on the shape."""


def seed_spread(losses: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the standard deviation of losses over seeds with its chi-square interval.

    Args:
        losses: final loss of each seed, nats per token.
        level: probability that the interval is to hold.

    Raises:
        ValueError: fewer than two seeds, or a loss that is not finite.
    """
    values = _seeds("losses", losses)
    free = len(values) - 1
    spread = float(values.std(ddof=1))
    upper, lower = (float(stats.chi2.ppf(p, free)) for p in ((1 + level) / 2, (1 - level) / 2))
    return Estimate(
        value=spread,
        low=spread * math.sqrt(free / upper),
        high=spread * math.sqrt(free / lower),
        level=level,
    )


def spread_ratio(
    first: ArrayLike,
    second: ArrayLike,
    *,
    level: float = LEVEL,
    resamples: int = 10_000,
    seed: int = 0,
) -> SpreadRatio:
    """Return the ratio of `first`'s standard deviation over seeds to `second`'s.

    Resamples in which all seeds of one side are the same run have no ratio and are refused.

    Args:
        first: final loss of each seed, for example of a routed model.
        second: the same of the model that it is held against.
        level: probability that the intervals are to hold.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two seeds, a loss that is not finite, or no spread at all.
    """
    a, b = _seeds("first", first), _seeds("second", second)
    for name, values in (("first", a), ("second", b)):
        if np.ptp(values) == 0:
            raise ValueError(f"{name} has no spread: all {len(values)} losses are {values[0]:g}")
    ratio = float(a.std(ddof=1) / b.std(ddof=1))
    high, low = (
        float(stats.f.ppf(p, len(a) - 1, len(b) - 1)) for p in ((1 + level) / 2, (1 - level) / 2)
    )
    generator = np.random.default_rng(seed)
    spread_a, spread_b = (
        values[generator.integers(len(values), size=(resamples, len(values)))].std(1, ddof=1)
        for values in (a, b)
    )
    # A resample of one repeated run has a spread of rounding errors only.
    usable = (spread_a > 1e-9 * np.ptp(a)) & (spread_b > 1e-9 * np.ptp(b))
    ratios = np.full(resamples, math.nan)
    ratios[usable] = spread_a[usable] / spread_b[usable]
    return SpreadRatio(
        ratio=ratio,
        f_test=Estimate(
            value=ratio, low=ratio / math.sqrt(high), high=ratio / math.sqrt(low), level=level
        ),
        bootstrap=percentile_interval(ratio, ratios, level=level),
    )


def _seeds(name: str, losses: ArrayLike) -> Floats:
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"{name} is {values.tolist()}; expected the finite losses of two or more seeds"
        )
    return values
