"""Values with their errors, intervals from draws of an estimator, and p-values of many tests."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import optimize, special

from isoflop.estimate import LEVEL, Estimate
from isoflop.frozen import Frozen

Floats = NDArray[np.float64]
Outcome = Literal["better", "worse", "equivalent", "unresolved"]
"""Of a variant held against another."""

FEWEST_DRAWS = 10
"""Copies of the runs that have a value, below which they give no interval."""


class WithError(Frozen):
    """A value with its standard error and the degrees of freedom that the error rests on."""

    value: float
    error: float = Field(ge=0)
    degrees_of_freedom: float = Field(gt=0)
    looks_from: int | None = None
    """Observations after which it was looked at first, and then after each: its interval and its
    p-values hold at all looks together, whenever one stops (`looked_at`). None for one look."""
    beside: WithError | None = None
    """The same value with another error: of both, each interval and p-value takes the worse."""

    def interval(self, level: float = LEVEL) -> Estimate:
        """Return Student's interval of the value, or the one that holds at every look."""
        if self.looks_from is None:
            half = float(special.stdtrit(self.degrees_of_freedom, (1 + level) / 2)) * self.error
        else:
            half = looked_at(self.degrees_of_freedom + 1, self.looks_from, level) * self.error
        if self.beside is not None:
            half = max(half, self.beside.interval(level).ends[1] - self.beside.value)
        return Estimate(
            value=self.value,
            low=self.value - half,
            high=self.value + half,
            level=level,
            looks_from=self.looks_from,
        )

    def p_below(self, limit: float = 0.0) -> float:
        """Return the one-sided p-value for a value below `limit`: small where it is below."""
        beside = 0.0 if self.beside is None else self.beside.p_below(limit)
        if self.error == 0:
            return max(beside, float(self.value >= limit))
        t, n = (self.value - limit) / self.error, self.degrees_of_freedom + 1
        if self.looks_from is None:
            p = float(special.stdtr(self.degrees_of_freedom, t))
        else:
            p = 1.0 if t >= 0 else looked_at_p(t, n, self.looks_from) / 2
        return max(beside, p)

    @property
    def _negative(self) -> WithError:
        beside = self.beside and self.beside._negative
        return self.model_copy(update={"value": -self.value, "beside": beside})

    def p_above(self, limit: float = 0.0) -> float:
        """Return the one-sided p-value for a value above `limit`."""
        return self._negative.p_below(-limit)

    def p_different(self) -> float:
        """Return the two-sided p-value for a value other than zero."""
        return min(1.0, 2 * min(self.p_below(), self.p_above()))

    def p_equivalent(self, margin: float | None) -> float | None:
        """Return the larger of the two one-sided tests against a margin (TOST), None without.

        Of many looks it is twice that: the interval itself is then within the margin.
        """
        if margin is None:
            return None
        larger = max(self.p_below(margin), self.p_above(-margin))
        return larger if self.looks_from is None else min(1.0, 2 * larger)


def looked_at(n: float, looks_from: int, level: float) -> float:
    """Return how many standard errors a mean's interval reaches that holds at every look.

    The confidence sequence for the mean of normal values of unknown variance of Lai (Annals of
    Statistics 4, 1976; section 3 of arXiv 2310.03722), which mixes flatly over mean and log scale:
    with probability `level` it holds the mean at all n >= m together, m = `looks_from`, 2 or more.
    """
    apart = optimize.brentq(
        lambda log_t: looked_at_p(math.exp(log_t), n, looks_from) - (1 - level), -1.0, 60.0
    )
    return math.exp(apart)


def looked_at_p(t: float, n: float, looks_from: int) -> float:
    """Return the p-value, for all looks together, of a mean `t` standard errors off after n values.

    With a such that n^-1 (1 + t^2 / (n - 1))^n = m^-1 (1 + a^2 / (m - 1))^m it is
    2 (1 - F(a) + a f(a)), F and f of Student's t with m - 1 degrees of freedom.
    """
    m = looks_from
    grown = n * math.log1p(t**2 / (n - 1)) - math.log(n / m)
    if grown <= 0:
        return 1.0
    a = math.sqrt((m - 1) * math.expm1(min(700.0, grown / m)))
    scale = math.lgamma(m / 2) - math.lgamma((m - 1) / 2) - math.log((m - 1) * math.pi) / 2
    density = math.exp(scale - m / 2 * math.log1p(a**2 / (m - 1)))
    return min(1.0, 2 * float(special.stdtr(m - 1, -a) + a * density))


def mean_estimate(values: ArrayLike) -> WithError:
    """Return the mean of two or more independent values with its standard error."""
    found = np.asarray(values, dtype=np.float64)
    return WithError(
        value=float(found.mean()),
        error=float(found.std(ddof=1)) / math.sqrt(len(found)),
        degrees_of_freedom=len(found) - 1,
    )


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


def two_way(table: Floats) -> tuple[float, float, float]:
    """Return the variances of rows, columns and the rest of a table (m, n) without replicates.

    Random effects (Searle, Casella and McCulloch, Variance Components, chapter 4); the first two
    are below zero where there is hardly any effect.
    """
    m, n = table.shape
    of_row, of_column = table.mean(axis=1), table.mean(axis=0)
    left = table - of_row[:, None] - of_column + table.mean()
    rest = float((left**2).sum()) / ((m - 1) * (n - 1))
    rows, columns = float(of_row.var(ddof=1)), float(of_column.var(ddof=1))
    return rows - rest / n, columns - rest / m, rest


def draws_interval(
    value: float, draws: ArrayLike, *, level: float = LEVEL, reflected: bool = False
) -> Estimate:
    """Return a value with the interval between two quantiles of its draws: every bootstrap's end.

    It always holds the value: where all of these draws lie beside it, the copies are moved to one
    side, and the interval reaches from them to the value rather than leave out either.

    Args:
        value: what the runs as they are give.
        draws: the same of resampled or simulated runs; NaN where one of them gave no value.
        level: share of the draws that lie between the quantiles.
        reflected: turn the quantiles over about the value (basic bootstrap; Davison and Hinkley,
            Bootstrap Methods, section 2.4), for a value that noise moves to one side: draws lie as
            far to that side of the value as the value lies of the truth.

    Raises:
        ValueError: no draw has a value.
    """
    drawn = np.asarray(draws, dtype=np.float64)
    usable = drawn[np.isfinite(drawn)]
    if not usable.size:
        raise ValueError("the statistic has no value on any resample of the runs")
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2]).tolist()
    low, high = min(low, value), max(high, value)
    if reflected:
        low, high = 2 * value - high, 2 * value - low
    return Estimate(
        value=value,
        low=low,
        high=high,
        level=level,
        resamples=len(usable),
        refused=len(drawn) - len(usable),
    )


def most_draws_interval(value: float, draws: ArrayLike, level: float) -> Estimate:
    """Return a value with the ends of `draws_interval`, where most of the draws have one."""
    drawn = np.asarray(draws, dtype=np.float64)
    if np.isfinite(drawn).sum() < max(FEWEST_DRAWS, 0.5 * len(drawn)):
        return Estimate(value=value)
    low, high = draws_interval(value, drawn, level=level).ends
    return Estimate(value=value, low=low, high=high)


def holm(
    p_values: Sequence[float | None], families: Sequence[Hashable] | None = None
) -> list[float | None]:
    """Return p-values corrected by Holm's step-down method; None stays None.

    They are corrected for their number, or for that of each family, where `families` has whose
    each one is.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    own = [None] * len(p_values) if families is None else families
    adjusted: list[float | None] = [None] * len(p_values)
    for family in set(own):
        members = [(p, i) for p, i in known if own[i] == family]
        highest = 0.0
        for rank, (p, i) in enumerate(members):
            highest = max(highest, min(1.0, (len(members) - rank) * p))
            adjusted[i] = highest
    return adjusted


def document_estimate(sums: ArrayLike, tokens: ArrayLike) -> WithError | None:
    """Return the mean over tokens of many documents, with the error that other ones would give.

    The mean is the ratio of both totals. Tokens of one document are alike, so documents are the
    sample, and the variance is the jackknife's: what leaving each of them out does. A few long
    documents tell as little as few documents do, so the degrees of freedom are one less than
    Kish's effective number of documents, (sum of tokens)^2 / sum of tokens^2, and at least one.

    Args:
        sums: total of each document, such as its summed loss in nats.
        tokens: of each document, at least one.

    Returns:
        The estimate; None with fewer than two documents.
    """
    totals, counts = np.asarray(sums, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if len(totals) < 2:
        return None
    mean = float(totals.sum() / counts.sum())
    share = counts / counts.sum()
    # Without document i the mean moves by -leverage[i] times how far the document lies off it.
    leverage = share / (1 - share)
    moved = leverage * (totals / counts - mean)
    variance = (1 - 1 / len(totals)) * float(moved @ moved)
    effective = 1 / float(share @ share)
    return WithError(
        value=mean, error=math.sqrt(variance), degrees_of_freedom=max(1.0, effective - 1)
    )


def seed_spread(losses: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the standard deviation of losses over seeds with its chi-square interval."""
    values = np.asarray(losses, dtype=np.float64)
    spread, free = float(values.std(ddof=1)), len(values) - 1
    high, low = (math.sqrt(2 * special.gammaincinv(free / 2, (1 + s * level) / 2)) for s in (-1, 1))
    scaled = spread * math.sqrt(free)
    return Estimate(value=spread, low=scaled / low, high=scaled / high, level=level)


def spread_ratio(first: ArrayLike, second: ArrayLike, *, level: float = LEVEL) -> Estimate:
    """Return the ratio of `first`'s standard deviation over seeds to `second`'s, by the F test.

    The interval is exact for normal losses; too narrow where single seeds stand far out.
    """
    one, other = (np.asarray(losses, dtype=np.float64) for losses in (first, second))
    ratio = float(one.std(ddof=1) / other.std(ddof=1))
    high, low = special.fdtri(len(one) - 1, len(other) - 1, [(1 + level) / 2, (1 - level) / 2])
    low, high = ratio / math.sqrt(high), ratio / math.sqrt(low)
    return Estimate(value=ratio, low=low, high=high, level=level)
