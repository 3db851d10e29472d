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
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.curves.seeds import NoisyMinimum


@dataclass(frozen=True, kw_only=True)
class Place:
    """A variant in a ranking."""

    variant: str
    loss: Estimate
    """At its minimum, nats per token, with half of a difference's half width on either side: two
    are told apart just where these do not overlap. Without ends where its noise is not known."""
    first: int | None = None
    """The best place that it may have, one more than those told to be better; with `last` a
    simultaneous interval of its rank (arXiv 1708.02729)."""
    last: int | None = None
    difference: Estimate | None = None
    """To the baseline's loss; None of the baseline, or where a noise of the two is not known."""
    seed_spread: float | None = None
    """Standard deviation of its minimum over seeds, nats per token."""


@dataclass(frozen=True)
class League:
    """The variants of one budget."""

    places: tuple[Place, ...]
    """Of those that have a minimum, the lowest first."""
    half_width: float | None
    """Of every difference; None with fewer than two variants whose noise is known."""
    reasons: Mapping[str, str]
    """Why a variant has no minimum, or no interval, by name."""


def league(minima: Sequence[NoisyMinimum], baseline: str, *, level: float = LEVEL) -> League:
    """Rank the minima of one budget, refusals among them; differences are to the baseline's.

    `level` is the probability that all intervals hold together.
    """
    noisy = {one.variant: one for one in minima if one.loss is not None}
    half = _half_width(list(noisy.values()), level) if len(noisy) > 1 else None
    known = {name: one.loss.value for name, one in noisy.items() if one.loss is not None}
    places = []
    for one in minima:
        loss = one.minimum.loss
        if loss is None:
            continue
        told: dict[str, Any] = {"loss": Estimate(value=loss)}
        if half is not None and one.variant in known:
            told = {
                "loss": _within(loss, half / 2, level),
                "first": 1 + sum(loss - other > half for other in known.values()),
                "last": len(known) - sum(other - loss > half for other in known.values()),
                "seed_spread": float(np.std(list(one.seed_deviations.values()), ddof=1)),
            }
            if one.variant != baseline and baseline in known:
                told["difference"] = _within(loss - known[baseline], half, level)
        places.append(Place(variant=one.variant, **told))
    reasons = {one.variant: one.reason for one in minima if one.reason is not None}
    return League(tuple(sorted(places, key=lambda one: one.loss.value)), half, reasons)


def _within(value: float, half: float, level: float) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, level=level)


def _half_width(noisy: Sequence[NoisyMinimum], level: float) -> float:
    """Return the half width of every difference of minima.

    It is that by seeds, or that by how runs scatter about their parabolas where this is wider, as
    for a single pair (`minimum_difference`). Of variants with unlike seeds the fewest count.
    """
    off = pd.DataFrame([one.seed_deviations for one in noisy]).to_numpy(dtype=np.float64)
    there = np.isfinite(off)
    freedom = int(there.sum()) - len(off)
    if there.all():
        off, freedom = off - off.mean(axis=0), freedom - off.shape[1] + 1
    errors = [(float(np.nansum(off**2)) / freedom / int(there.sum(axis=1).min()), float(freedom))]
    scattered = [one.loss_by_scatter for one in noisy if one.loss_by_scatter is not None]
    if scattered:
        free = sum(one.degrees_of_freedom for one in scattered)
        pooled = sum(one.degrees_of_freedom * one.error**2 for one in scattered) / free
        errors.append((pooled, free))
    return max(_reach(len(noisy), free, level) * math.sqrt(variance) for variance, free in errors)


@cache
def _reach(variants: int, degrees_of_freedom: float, level: float) -> float:
    """Return how many standard errors of one minimum its largest difference to another reaches."""
    # Slow to load, and asked for by pages alone.
    from scipy.stats import studentized_range

    return float(studentized_range.ppf(level, variants, degrees_of_freedom))
