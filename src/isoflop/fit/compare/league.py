"""All variants of a budget in one ranking, whose statements hold together.

Every difference of two minima has Tukey's simultaneous interval, by the studentised range: all of
them hold at once with probability `level` (Hochberg and Tamhane, Multiple Comparison Procedures,
sections 3.2 and 8.2, seeds being blocks). The error is pooled over the variants, since three seeds
each would tell next to nothing; so their seeds are taken to scatter alike.

Axes: V variants, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.curves.seeds import NoisyMinimum


@dataclass(frozen=True, kw_only=True)
class Place:
    """A variant in a ranking."""

    variant: str
    loss: float
    """At its minimum, nats per token."""
    half_width: float | None = None
    """Half of what tells a difference: two variants are told apart just where their losses with so
    much on either side do not overlap. None where its noise is not known."""
    first: int | None = None
    """The best place that it may have, one more than those told to be better; as `last`, a
    simultaneous interval of its rank (arXiv 1708.02729)."""
    last: int | None = None
    difference: Estimate | None = None
    """To the baseline's loss; None of the baseline, or where a noise of the two is not known."""
    seed_spread: float | None = None
    """Standard deviation of its minimum over seeds, nats per token."""

    @property
    def interval(self) -> Estimate:
        """The loss, with the ends that overlap where variants are not told apart."""
        if self.half_width is None:
            return Estimate(value=self.loss)
        low, high = self.loss - self.half_width, self.loss + self.half_width
        return Estimate(value=self.loss, low=low, high=high)


@dataclass(frozen=True, kw_only=True)
class League:
    """The variants of one budget, the lowest minimum first."""

    places: tuple[Place, ...] = ()
    """Of those that have a minimum."""
    half_width: float | None = None
    """Of every difference; None with fewer than two variants whose noise is known."""
    paired: bool = False
    """Whether all have the same seeds, so that what moves all alike cancels."""
    level: float = LEVEL
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a variant has no minimum, or no interval, by name."""


def league(minima: Sequence[NoisyMinimum], baseline: str, *, level: float = LEVEL) -> League:
    """Rank the minima of one budget.

    Args:
        minima: of each variant, refusals too.
        baseline: the variant to whose minimum the differences are.
        level: probability that all intervals hold together.
    """
    noisy = [one for one in minima if one.loss is not None]
    half, paired = _half_width(noisy, level) if len(noisy) > 1 else (None, False)
    known = {one.variant: one.minimum.loss for one in noisy if one.minimum.loss is not None}
    places = []
    for one in minima:
        loss = one.minimum.loss
        if loss is None:
            continue
        if half is None or one.variant not in known:
            places.append(Place(variant=one.variant, loss=loss))
            continue
        apart = None
        if one.variant != baseline and baseline in known:
            value = loss - known[baseline]
            apart = Estimate(value=value, low=value - half, high=value + half, level=level)
        places.append(
            Place(
                variant=one.variant,
                loss=loss,
                half_width=half / 2,
                first=1 + sum(loss - other > half for other in known.values()),
                last=len(known) - sum(other - loss > half for other in known.values()),
                difference=apart,
                seed_spread=float(np.std(list(one.seed_deviations.values()), ddof=1)),
            )
        )
    return League(
        places=tuple(sorted(places, key=lambda one: one.loss)),
        half_width=half,
        paired=paired,
        level=level,
        reasons={one.variant: one.reason for one in minima if one.reason is not None},
    )


def _half_width(noisy: Sequence[NoisyMinimum], level: float) -> tuple[float, bool]:
    """Return the half width of every difference of minima, and whether seeds were paired.

    It is that by seeds, or that by how runs scatter about their parabolas where this is wider, as
    for a single pair (`minimum_difference`). Of variants with unlike seeds the fewest count.
    """
    paired = len({frozenset(one.seed_deviations) for one in noisy}) == 1
    seeds = min(len(one.seed_deviations) for one in noisy)
    if paired:
        order = sorted(noisy[0].seed_deviations)
        off = np.array([[one.seed_deviations[seed] for seed in order] for one in noisy])
        off -= off.mean(axis=0)
        squares, freedom = float((off**2).sum()), (len(noisy) - 1) * (seeds - 1)
    else:
        own = [np.array(list(one.seed_deviations.values())) for one in noisy]
        squares = sum(float((one**2).sum()) for one in own)
        freedom = sum(len(one) - 1 for one in own)
    errors = [(squares / freedom / seeds, float(freedom))]
    scattered = [one.loss_by_scatter for one in noisy if one.loss_by_scatter is not None]
    if scattered:
        free = sum(one.degrees_of_freedom for one in scattered)
        pooled = sum(one.degrees_of_freedom * one.error**2 for one in scattered) / free
        errors.append((pooled, free))
    reaches = [_reach(len(noisy), free, level) * math.sqrt(variance) for variance, free in errors]
    return max(reaches), paired


@cache
def _reach(variants: int, degrees_of_freedom: float, level: float) -> float:
    """Return how many standard errors of one minimum its largest difference to another reaches."""
    # Slow to load, and asked for by pages alone.
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, variants, degrees_of_freedom))
