"""Variants compared on their surfaces, which needs no budget that both were trained at.

Along the optimum a surface with training FLOPs C = D exp(h) N^s is L = E + G C^-g with
g = alpha beta / (alpha + s beta), so that the compute at which a variant reaches the baseline's
loss is in closed form. At a stated size and number of tokens both grow by one factor: D / N stays.

Each variant's copies are drawn on their own, so that errors of both add up.

Axes: R copies of the runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from scipy import special

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.minima import ESTIMATOR_NAMES
from isoflop.fit.intervals import FEWEST_DRAWS, Floats, Outcome, holm
from isoflop.fit.settings import USUAL, Estimator, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.sample import FAR, Samples, SurfaceSample, fit_surfaces
from isoflop.fit.surfaces.surface import losses_at, surface_optima
from isoflop.fit.tables.frame import finished_variants, run_flops

LARGEST_FACTOR = 1e6
"""In size and tokens, within which the loss of the baseline is looked for."""
HALVINGS = 60


class SurfaceGap(Frozen):
    """Two variants at one place: the optimum of a compute, or a stated size and tokens."""

    estimator: Estimator
    place: Literal["optimum", "stated"]
    training_flops: float
    """C; of a stated place, as the baseline's runs count it."""
    parameters: float | None = None
    """N of a stated place; at the optimum each variant has its own."""
    tokens: float | None = None
    difference: Estimate
    """The variant's loss less the baseline's, nats per token; negative is better."""
    multiplier: Estimate | None = None
    """Compute at which the variant has the baseline's loss, over the baseline's. None where it
    never has; an end is missing where noise may have it so."""
    extrapolation: float
    """How many times beyond the runs of either variant this is; 1 among them."""
    p: float
    """Two-sided: how often noise alone would give a difference as large or larger."""
    p_adjusted: float | None = None
    """The same by Holm, over all variants at places of this kind by this estimator."""
    outcome: Outcome = "unresolved"


class SurfaceComparison(Frozen):
    """A variant against the baseline on their surfaces."""

    baseline: str
    variant: str
    low_flops: float | None = None
    """Least compute at which both have runs; None where their runs do not overlap."""
    high_flops: float | None = None
    gaps: tuple[SurfaceGap, ...] = ()
    """By each estimator: at the stated place, where there is one, and at the optimum at the least,
    the middle and the most compute that both have runs at, or half way between their runs."""
    level: float
    reason: str | None = None
    """Why there is no gap, or why none is better or worse."""

    def headline(self, place: Literal["optimum", "stated"] = "optimum") -> SurfaceGap | None:
        """Return the gap to tell first: by Huber where there is one, in the middle of compute."""
        for estimator in SURFACE_ESTIMATORS:
            found = [g for g in self.gaps if g.place == place and g.estimator == estimator]
            if found:
                return found[len(found) // 2]
        return None


def compare_surfaces(
    table: pd.DataFrame,
    baseline: str,
    *,
    settings: FitSettings = USUAL,
    at: tuple[float, float] | None = None,
    samples: Samples | None = None,
) -> tuple[SurfaceComparison, ...]:
    """Return how every other variant compares with the baseline on their surfaces.

    Only surfaces that converged are compared. Better or worse is said where the test of no
    difference stands at 1 - `level` after Holm's correction over variants and places, among runs
    of both, by surfaces that describe their runs.

    Args:
        table: as `frame` or `run_table` makes it.
        baseline: the variant that the others are held against.
        settings: of the surfaces and their copies.
        at: a size and a number of tokens to compare at as well.
        samples: surfaces of the table, where there are some already.

    Raises:
        ValueError: the baseline has no finished run.
    """
    finished, names = finished_variants(table, " to predict from")
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    known = fit_surfaces(finished, names, settings) if samples is None else samples
    found = [_compared(known, baseline, name, settings, at) for name in names if name != baseline]
    gaps = [gap for one in found for gap in one.gaps]
    adjusted = iter(holm([gap.p for gap in gaps], [(gap.estimator, gap.place) for gap in gaps]))
    told = []
    for one in found:
        own = []
        for gap in one.gaps:
            p, outcome = next(adjusted), gap.outcome
            stands = p is not None and p <= 1 - settings.level
            if stands and one.reason is None and gap.extrapolation <= FAR:
                outcome = "better" if gap.difference.value < 0 else "worse"
            own.append(gap.model_copy(update={"p_adjusted": p, "outcome": outcome}))
        told.append(one.model_copy(update={"gaps": tuple(own)}))
    return tuple(told)


def _compared(
    samples: Samples,
    baseline: str,
    variant: str,
    settings: FitSettings,
    at: tuple[float, float] | None,
) -> SurfaceComparison:
    """Return the gaps between two variants, whose outcomes are open."""
    pairs = list(zip(samples[variant].values(), samples[baseline].values(), strict=True))
    made = SurfaceComparison(baseline=baseline, variant=variant, level=settings.level)
    if not pairs:
        return made.model_copy(update={"reason": "no surface was asked for"})
    flops = [run_flops(sample.rows) for sample in pairs[0]]
    low, high = max(float(own.min()) for own in flops), min(float(own.max()) for own in flops)
    places = [math.sqrt(low) * math.sqrt(high)]
    if low <= high:
        made = made.model_copy(update={"low_flops": low, "high_flops": high})
        places = sorted({low, *places, high})
    gaps, reasons = [], []
    for one, base in pairs:
        unusable = next((s for s in (one, base) if s.surface is None), None)
        if unusable is not None:
            name = ESTIMATOR_NAMES[unusable.fit.estimator]
            reasons.append(f"{unusable.variant}, {name}: {unusable.fit.message}")
            continue
        reasons += [f"{s.variant}: {s.warning}" for s in (one, base) if s.warning]
        gaps += list(_gaps(one, base, places, at))
    return made.model_copy(
        update={"gaps": tuple(gaps), "reason": "; ".join(dict.fromkeys(reasons)) or None}
    )


def _gaps(
    one: SurfaceSample, base: SurfaceSample, places: Sequence[float], at: tuple[float, float] | None
) -> Iterator[SurfaceGap]:
    """Yield the gap at a stated place, then along the optimum where both variants have one."""
    # The same seed gives variants of as many runs the same signs: shuffled, errors add up.
    generator = np.random.default_rng((one.settings.seed, 1))
    # Row 0 is the fit, the others are copies.
    ours, theirs = (
        np.concatenate([[s.surface.row], generator.permutation(s.draws)[:, :5]])
        for s in (one, base)
        if s.surface is not None
    )
    slope = one.law.slope
    if at is not None:
        wanted = losses_at(theirs, *at)
        own, flops = (s.law.flops(*at) for s in (one, base))
        times = _growth(ours, *at, wanted) ** (1 + slope) * own / flops
        yield _gap((one, base), flops, losses_at(ours, *at) - wanted, times, at)
    for flops in places:
        _, losses = surface_optima(ours, flops, one.law)
        _, wanted = surface_optima(theirs, flops, base.law)
        if not (math.isfinite(losses[0]) and math.isfinite(wanted[0])):
            continue
        e, _, _, alpha, beta = ours.T
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            power = alpha * beta / (alpha + slope * beta)
            times = ((wanted - e) / (losses - e)) ** (-1 / power)
            # A loss at or below E is never reached.
            times = np.where(wanted > e, times, np.where(np.isfinite(e + wanted), np.inf, np.nan))
        yield _gap((one, base), flops, losses - wanted, times)


def _gap(
    both: tuple[SurfaceSample, SurfaceSample],
    flops: float,
    differences: Floats,
    times: Floats,
    at: tuple[float, float] | None = None,
) -> SurfaceGap:
    level = both[0].settings.level
    where = {} if at is None else {"parameters": at[0], "tokens": at[1]}
    drawn = differences[1:][np.isfinite(differences[1:])]
    return SurfaceGap(
        estimator=both[0].fit.estimator,
        place="optimum" if at is None else "stated",
        training_flops=flops,
        **where,
        difference=_interval(differences, level),
        multiplier=_interval(times, level) if math.isfinite(times[0]) else None,
        extrapolation=max(s.extrapolation(flops=flops, **where) for s in both),
        p=_two_sided(drawn, min(s.fit.points for s in both) - 5),
    )


def _two_sided(drawn: Floats, freedom: int) -> float:
    """Return how often noise alone would give a difference as large, from its draws.

    It is twice the share of the draws on the other side of zero. Where hardly any are there, their
    share tells little, and Holm over several variants would ask for more draws than there are: it
    is then the tail of Student's with their mean and spread, where that is less.
    """
    tail = int(min((drawn >= 0).sum(), (drawn <= 0).sum()))
    counted = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
    spread = float(drawn.std()) if len(drawn) >= FEWEST_DRAWS else 0.0
    if tail >= FEWEST_DRAWS or not spread > 0:
        return counted
    return min(
        counted, 2 * float(special.stdtr(max(1, freedom), -abs(float(drawn.mean())) / spread))
    )


def _growth(surfaces: Floats, parameters: float, tokens: float, losses: Floats) -> Floats:
    """Return the factor of size and tokens at which surfaces (R, 5) have losses (R,).

    Infinite for a loss that is not reached within `LARGEST_FACTOR`, NaN where there is none.
    """
    low = np.full(len(losses), -math.log(LARGEST_FACTOR))
    high = -low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        above = losses_at(surfaces, parameters * np.exp(middle), tokens * np.exp(middle)) > losses
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    found = np.exp((low + high) / 2)
    found = np.where(found > 0.999 * LARGEST_FACTOR, np.inf, found)
    return np.where(np.isfinite(losses), found, np.nan)


def _interval(values: Floats, level: float) -> Estimate:
    """Return the value in row 0 with the percentile interval of the others; infinite is missing."""
    drawn = values[1:][~np.isnan(values[1:])]
    value = float(values[0])
    if len(drawn) < FEWEST_DRAWS:
        return Estimate(value=value)
    # The nearest draws outward, between which infinite ones cannot be averaged.
    low = float(np.quantile(drawn, (1 - level) / 2, method="lower"))
    high = float(np.quantile(drawn, (1 + level) / 2, method="higher"))
    low, high = min(low, value), max(high, value)
    return Estimate(value=value, low=low, high=high if math.isfinite(high) else None)
