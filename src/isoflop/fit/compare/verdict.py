"""Is one variant better than another at the same compute, by how much, and how sure is that?

The difference of two minima is judged on seeds: where both variants were trained with the same
ones, seed by seed. What it is worth is said as a compute multiplier: the share of its compute at
which a variant reaches the other's loss.

Axes: R copies of the runs, B budgets.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.minima import CurveMinimum, minima
from isoflop.fit.curves.seeds import (
    NoisyMinimum,
    minimum_difference,
    noisy_minimum,
    seeds_in_common,
)
from isoflop.fit.intervals import Floats, Outcome, draws_interval, holm
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.tables.frame import budgets, curve_rows

_Frontier = tuple[Floats, Floats]
"""Log budgets (B,), ascending, and minimum losses (1 + R, B): of the runs, then of their noisy
copies, NaN where one has no minimum."""

CROSSING_SHARE = 0.9
"""Copies of the curves that must cross, below which the interval would leave out its own tail."""

FEW_IN_COMMON = "fewer than two seeds in common near both minima"
"""Why variants whose seeds are added one by one are not compared yet."""


class Difference(Frozen):
    """A variant's minimum loss less the baseline's at one budget, with the tests made of it."""

    interval: Estimate
    """Nats per token; negative is better."""
    paired: bool
    """Whether it was taken seed by seed."""
    p_superior: float
    """One-sided: how often no better a variant would look this good or better."""
    p_inferior: float
    p_equivalent: float | None = None
    """Larger of the two one-sided tests against the margin (TOST); None without a margin."""


class Multiplier(Frozen):
    """Compute at which a variant reaches the baseline's loss, over the baseline's compute."""

    interval: Estimate
    irreducible: float
    """Loss that is taken to remain at infinite compute, nats per token."""
    sensitivity: tuple[tuple[float, float], ...]
    """The multiplier for other irreducible losses: pairs of (loss, multiplier)."""


class BudgetVerdict(Frozen):
    """What the runs at one budget say of one variant against the baseline."""

    baseline: str
    variant: str
    budget_flops: float
    outcome: Outcome
    difference: Difference | None = None
    """By the parabola, as the outcome, the multiplier and the fraction are."""
    estimates: Mapping[Estimator, float] = {}
    """The difference by each estimator that found both minima, nats per token: how far they are
    apart is a systematic error bar, of which the interval of `difference` holds only how badly
    a parabola fits."""
    multiplier: Multiplier | None = None
    forward_fraction: Estimate | None = None
    """Share of the optimal baseline's forward FLOPs per token at which the variant has its loss."""
    p_adjusted: float | None = None
    """Of the likeliest outcome, by Holm over all comparisons made; None without a difference."""
    margin: float | None = None
    """Difference declared beforehand to count as none, nats per token."""
    reason: str | None = None
    """What kept the variants from being compared, or their noise from being known."""


def verdicts(
    draws: CurveDraws,
    baseline: str,
    found: Sequence[CurveMinimum] = (),
    *,
    irreducible: float = 0.0,
) -> tuple[BudgetVerdict, ...]:
    """Return the verdict on every other variant at every budget.

    A variant is better, worse or equivalent only where the test of that stands at 1 - `level`
    after Holm's correction for all comparisons made here.

    Args:
        draws: the table of runs, with noisy minima, and the settings: margin, level, copies.
        baseline: the variant that the others are held against.
        found: minima of the table by every estimator.
        irreducible: loss at infinite compute that multipliers assume.

    Raises:
        ValueError: the baseline is not in the table.
    """
    table, asked = draws.table, draws.settings
    names = table["variant"].drop_duplicates().tolist()
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    parabolas = [one for one in found if one.estimator == "parabola"]
    optima = {
        (one.variant, one.budget_flops): one for one in parabolas or minima(table, ["parabola"])
    }
    frontiers = {name: _frontier(name, optima, draws) for name in names}
    told = []
    for one in judged(table, baseline, asked, optima):
        name, budget = one.variant, one.budget_flops
        optimum = optima.get((baseline, budget))
        known: dict[str, object] = {"estimates": _estimates(found, name, baseline, budget)}
        if one.difference is not None:
            pair = frontiers[name], frontiers[baseline]
            known["multiplier"] = _multiplier(*pair, budget, irreducible, asked.level)
        if optimum is not None:
            share = loss_matching(table, optimum, name, draws=draws)
            if isinstance(share, Estimate) and share.low is not None:
                known["forward_fraction"] = share
        told.append(one.model_copy(update=known))
    return tuple(told)


def judged(
    table: pd.DataFrame,
    baseline: str,
    settings: FitSettings,
    optima: Mapping[tuple[str, float], CurveMinimum] | None = None,
) -> tuple[BudgetVerdict, ...]:
    """Return the `verdicts` with nothing beside difference and outcome, which is quick.

    `optima` are minima by the parabola of variants at budgets, where they have been found already.
    """
    known = optima or {}
    names = table["variant"].drop_duplicates().tolist()

    @cache
    def noisy(name: str, budget: float) -> NoisyMinimum:
        at = known.get((name, budget))
        return noisy_minimum(table, name, budget, level=settings.level, known=at)

    told = []
    for budget, name in itertools.product(budgets(table), names):
        if name == baseline:
            continue
        if settings.declared_seeds:
            seeds = seeds_in_common(table, (name, baseline), budget, settings.declared_seeds)
            own = table[table["seed"].isin(seeds)]
            pair = noisy_minimum(own, name, budget), noisy_minimum(own, baseline, budget)
            # Where fewer of those declared are common, two are what is looked at first.
            looks_from = max(2, sum(seed in settings.declared_seeds for seed in seeds))
        else:
            pair, looks_from = (noisy(name, budget), noisy(baseline, budget)), None
        told.append(_compared(pair, budget, settings, looks_from))
        if looks_from and len(seeds) < 2:
            whole = noisy(name, budget), noisy(baseline, budget)
            found = all(one.minimum.loss is not None for one in whole)
            reason = FEW_IN_COMMON if found else _reasons(whole)
            told[-1] = told[-1].model_copy(update={"reason": reason})
    likeliest = [_best_p(one.difference) for one in told]
    adjusted = holm([p for _, p in likeliest])
    stand = [p is not None and p <= 1 - settings.level for p in adjusted]
    return tuple(
        one.model_copy(update={"outcome": out if stands else "unresolved", "p_adjusted": p})
        for one, (out, _), p, stands in zip(told, likeliest, adjusted, stand, strict=True)
    )


def _compared(
    pair: tuple[NoisyMinimum, NoisyMinimum],
    budget: float,
    settings: FitSettings,
    looks_from: int | None,
) -> BudgetVerdict:
    """Return the difference of two minima, with an outcome that is still open."""
    one, base = pair
    apart, found = None, minimum_difference(one, base, looks_from)
    if found is not None:
        estimate, paired = found
        apart = Difference(
            interval=estimate.interval(settings.level),
            paired=paired,
            p_superior=estimate.p_below(),
            p_inferior=estimate.p_above(),
            p_equivalent=estimate.p_equivalent(settings.margin),
        )
    return BudgetVerdict(
        baseline=base.variant,
        variant=one.variant,
        budget_flops=budget,
        outcome="unresolved",
        difference=apart,
        margin=settings.margin,
        reason=_reasons(pair),
    )


def _reasons(pair: tuple[NoisyMinimum, NoisyMinimum]) -> str | None:
    """Return why either minimum, or its noise, is not known."""
    return "; ".join(f"{one.variant}: {one.reason}" for one in pair if one.reason) or None


def _estimates(
    found: Iterable[CurveMinimum], variant: str, baseline: str, budget: float
) -> dict[Estimator, float]:
    losses = {
        (one.variant, one.estimator): one.loss
        for one in found
        if one.budget_flops == budget and one.loss is not None
    }
    return {
        estimator: loss - losses[baseline, estimator]
        for (name, estimator), loss in losses.items()
        if name == variant and (baseline, estimator) in losses
    }


def _frontier(
    variant: str, optima: Mapping[tuple[str, float], CurveMinimum], draws: CurveDraws
) -> _Frontier | None:
    """Return minimum loss against compute, None with fewer than two budgets that have both."""
    found = [
        (math.log(budget), np.append(one.loss, drawn[1]))
        for (name, budget), one in optima.items()
        if name == variant
        and one.loss is not None
        and (drawn := draws.minima(name, budget)) is not None
    ]
    if len(found) < 2:
        return None
    log_budgets, columns = zip(*found, strict=True)
    return np.array(log_budgets), np.stack(columns, axis=1)


def _log_compute_at(log_budgets: Floats, losses: Floats, goals: Floats, floor: float) -> Floats:
    """Return log FLOPs at which frontiers (R, B) reach losses (R,), NaN where they do not.

    Between budgets, and beyond them, log reducible loss is a line in log compute.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        heights, wanted = np.log(losses - floor).tolist(), np.log(goals - floor).tolist()
    found = np.full(len(wanted), math.nan)
    # Numbers of Python, since arrays of a few budgets each cost more to make than to use.
    for row, (height, goal) in enumerate(zip(heights, wanted, strict=True)):
        pairs = zip(log_budgets.tolist(), height, strict=True)
        known = [(x, y) for x, y in pairs if math.isfinite(y)]
        if len(known) < 2 or not math.isfinite(goal):
            continue
        # The segment whose losses hold the goal; the outermost ones reach beyond the budgets.
        at = bisect_left(known, -goal, key=lambda point: -point[1]) - 1
        (x, y), (next_x, next_y) = known[min(max(at, 0), len(known) - 2) :][:2]
        slope = (next_y - y) / (next_x - x)
        if slope < 0:
            found[row] = x + (goal - y) / slope
    return found


def _multiplier(
    one: _Frontier | None, base: _Frontier | None, budget: float, floor: float, level: float
) -> Multiplier | None:
    if one is None or base is None:
        return None
    at = np.flatnonzero(np.isclose(base[0], math.log(budget)))
    if not len(at):
        return None
    goals = base[1][:, at[0]]

    def times(rows: slice, irreducible: float) -> Floats:
        reached = _log_compute_at(one[0], one[1][rows], goals[rows], irreducible)
        return np.exp(reached - math.log(budget))

    known = times(slice(None), floor)
    if not math.isfinite(known[0]) or np.isfinite(known[1:]).mean() < 0.9:
        return None
    lowest = float(min(one[1][0].min(), base[1][0].min()))
    others = sorted({0.0, round(0.5 * lowest, 4), round(0.9 * lowest, 4)} - {floor})
    return Multiplier(
        interval=draws_interval(float(known[0]), known[1:], level=level),
        irreducible=floor,
        sensitivity=tuple((other, float(times(slice(1), other)[0])) for other in others),
    )


def _best_p(apart: Difference | None) -> tuple[Outcome, float | None]:
    """Return the outcome that the tests speak for most, with its p-value."""
    if apart is None:
        return "unresolved", None
    tests: dict[Outcome, float] = {
        "better": min(1.0, 2 * apart.p_superior),
        "worse": min(1.0, 2 * apart.p_inferior),
    }
    if apart.p_equivalent is not None:
        tests["equivalent"] = apart.p_equivalent
    outcome = min(tests, key=tests.__getitem__)
    return outcome, tests[outcome]


def loss_matching(
    table: pd.DataFrame,
    baseline: CurveMinimum,
    challenger: str,
    *,
    draws: CurveDraws | None = None,
) -> Estimate | str:
    """Return the share of the optimal baseline's forward FLOPs that gives its loss, or why none.

    The challenger's ladder, seeds averaged, is walked from the cheapest forward pass up; between
    two sizes the loss is a line in log forward FLOPs, and the first crossing counts. A line lies
    above a convex curve, so the fraction errs on the high side.

    Args:
        table: as `frame` makes it.
        baseline: the baseline's minimum at the budget.
        challenger: name of the other variant.
        draws: noise of the curves, which the interval is made from; none without, nor where too few
            copies of the curves cross.
    """
    budget, target, optimal = baseline.budget_flops, baseline.loss, baseline.forward_flops
    if target is None or optimal is None:
        return f"{baseline.variant} has no minimum: {baseline.message}"
    ladder = _ladder(table, challenger, budget)
    flops, losses = ladder["forward_flops"].to_numpy(), ladder["loss"].to_numpy()
    if not len(losses):
        return "no finished runs"
    if losses[0] <= target:
        below = flops[0] / optimal
        return f"even the cheapest size reaches the loss; the fraction is below {below:.3g}"
    if losses.min() > target:
        return f"never reaches {target:.4f}; its lowest loss is {losses.min():.4f}"
    fraction = float(np.exp(_crossings(np.log(flops), losses[None], np.array([target])))[0])
    found = Estimate(value=fraction / optimal)
    base = draws and draws.minima(baseline.variant, budget)
    noisy = draws and draws.size_losses(challenger, budget)
    if not draws or not base or not noisy:
        return found
    sizes, copies = noisy
    # Sizes that are nearly the same are one of the curve's, between those of the ladder.
    log_flops = _log_flops(ladder, np.log(sizes))
    order = np.argsort(log_flops)
    targets = np.where(np.isfinite(base[1]), base[1], -math.inf)
    crossing = _crossings(log_flops[order], copies[:, order], targets)
    crossing -= _log_flops(_ladder(table, baseline.variant, budget), base[0])
    if np.isfinite(crossing).mean() < CROSSING_SHARE:
        return found
    return draws_interval(found.value, np.exp(crossing), level=draws.settings.level)


def _ladder(table: pd.DataFrame, variant: str, budget_flops: float) -> pd.DataFrame:
    """Return the sizes of a variant, their forward FLOPs and mean loss, the cheapest first."""
    shapes = curve_rows(table, variant, budget_flops).groupby(["parameters", "blocks", "width"])
    means = shapes[["forward_flops", "loss"]].mean().reset_index()
    return means.sort_values("forward_flops", kind="stable")


def _log_flops(ladder: pd.DataFrame, log_sizes: Floats) -> Floats:
    """Return log forward FLOPs at log sizes, on lines between those of a ladder."""
    known = np.log(ladder.sort_values("parameters")[["parameters", "forward_flops"]].to_numpy())
    return np.asarray(np.interp(log_sizes, known[:, 0], known[:, 1]))


def _crossings(log_flops: Floats, losses: Floats, targets: Floats) -> Floats:
    """Return where curves (R, S) over log FLOPs (S,) first fall to targets (R,), NaN if nowhere."""
    goal = targets[:, None]
    falls = (losses[:, :-1] > goal) & (losses[:, 1:] <= goal)
    # A curve that starts below its goal has been there already.
    found = falls.any(axis=1) & (losses[:, 0] > targets)
    at, rows = falls.argmax(axis=1), np.arange(len(losses))
    before, after = losses[rows, at], losses[rows, at + 1]
    share = (before - targets) / np.where(found, before - after, 1.0)
    return np.where(found, log_flops[at] + share * np.diff(log_flops)[at], math.nan)
