"""Is one variant better than another at the same compute, by how much, and how sure is that?

The difference of two minima is judged on seeds: where both variants were trained with the same
ones, seed by seed. What it is worth is said as a compute multiplier: the share of its compute at
which a variant reaches the other's loss.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.comparison import loss_matching
from isoflop.fit.curves import CurveMinimum, minima
from isoflop.fit.frame import budgets
from isoflop.fit.interval import percentile_interval
from isoflop.fit.minimum import Estimator, Floats
from isoflop.fit.minimum_draws import CurveDraws
from isoflop.fit.noise import NoisyMinimum, minimum_difference, noisy_minimum
from isoflop.fit.resampling import RESAMPLES

Outcome = Literal["better", "worse", "equivalent", "unresolved"]


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
    table: pd.DataFrame,
    baseline: str,
    *,
    margin: float | None = None,
    irreducible: float | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    draws: CurveDraws | None = None,
    found: Iterable[CurveMinimum] | None = None,
) -> tuple[BudgetVerdict, ...]:
    """Return the verdict on every other variant at every budget.

    A variant is better, worse or equivalent only where the test of that stands at 1 - `level`
    after Holm's correction for all comparisons made here.

    Args:
        table: as `frame` or `run_table` makes it.
        baseline: the variant that the others are held against.
        margin: difference of loss that counts as none, declared before the runs were seen.
        irreducible: loss at infinite compute that multipliers assume; None for none, 0.
        level: probability that intervals are to hold.
        resamples: of the intervals of multipliers.
        seed: of these.
        draws: noisy minima of the table, where they have been drawn already.
        found: minima of the table by every estimator, where they have been fitted already.

    Raises:
        ValueError: the baseline is not in the table, or the margin is not positive.
    """
    names = table["variant"].drop_duplicates().tolist()
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    if margin is not None and not margin > 0:
        raise ValueError(f"margin is {margin:g}; expected a positive difference of loss")
    floor = irreducible or 0.0
    drawn = draws or CurveDraws(table, resamples=resamples, seed=seed)
    noisy = {
        (name, budget): noisy_minimum(table, name, budget, level=level)
        for name in names
        for budget in budgets(table)
    }
    frontiers = {name: _Frontier.measured(name, noisy, drawn) for name in names}
    open_verdicts: list[
        tuple[
            NoisyMinimum, NoisyMinimum, float, Difference | None, Multiplier | None, Estimate | None
        ]
    ] = []
    optima = {one.budget_flops: one for one in _baseline_minima(table, baseline)}
    for budget in budgets(table):
        base = noisy[baseline, budget]
        for name in names:
            if name == baseline:
                continue
            one = noisy[name, budget]
            apart = _difference(one, base, margin, level)
            multiplier = None
            if apart is not None:
                multiplier = _multiplier(frontiers[name], frontiers[baseline], budget, floor, level)
            fraction = None
            if budget in optima:
                match = loss_matching(table, optima[budget], name, draws=drawn, level=level)
                fraction = match.interval
            open_verdicts.append((one, base, budget, apart, multiplier, fraction))
    adjusted = holm([_best_p(apart)[1] for *_, apart, _, _ in open_verdicts])
    fitted = tuple(minima(table) if found is None else found)
    return tuple(
        _verdict(*one, estimates=_estimates(fitted, *one[:3]), margin=margin, p=p, level=level)
        for one, p in zip(open_verdicts, adjusted, strict=True)
    )


def _estimates(
    found: Sequence[CurveMinimum], one: NoisyMinimum, base: NoisyMinimum, budget: float
) -> dict[Estimator, float]:
    losses = {
        (at.variant, at.minimum.estimator): at.minimum.loss
        for at in found
        if at.budget_flops == budget and at.minimum.loss is not None
    }
    return {
        estimator: loss - losses[base.variant, estimator]
        for (name, estimator), loss in losses.items()
        if name == one.variant and (base.variant, estimator) in losses
    }


def _baseline_minima(table: pd.DataFrame, baseline: str) -> tuple[CurveMinimum, ...]:
    return minima(table[table["variant"] == baseline], ("parabola",))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values corrected for their number by Holm's step-down method; None stays None."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted


def _difference(
    one: NoisyMinimum, base: NoisyMinimum, margin: float | None, level: float
) -> Difference | None:
    found = minimum_difference(one, base)
    if found is None:
        return None
    estimate, paired = found
    return Difference(
        interval=estimate.interval(level),
        paired=paired,
        p_superior=estimate.p_below(),
        p_inferior=estimate.p_above(),
        p_equivalent=None
        if margin is None
        else max(estimate.p_below(margin), estimate.p_above(-margin)),
    )


class _Frontier:
    """Minimum loss against compute of one variant, and noisy copies of it."""

    def __init__(self, budget_flops: Floats, losses: Floats, draws: Floats) -> None:
        self.log_budgets = np.log(budget_flops)
        self.losses = losses
        self.draws = draws
        """(R, budgets), NaN where a copy has no minimum."""

    @classmethod
    def measured(
        cls, variant: str, noisy: Mapping[tuple[str, float], NoisyMinimum], draws: CurveDraws
    ) -> _Frontier | None:
        """Return the frontier, None with fewer than two budgets that have a minimum."""
        found = []
        for (name, budget), one in noisy.items():
            if name != variant:
                continue
            loss, drawn = one.minimum.loss, draws.minima(variant, budget)
            if loss is not None and drawn is not None:
                found.append((budget, loss, drawn[1]))
        if len(found) < 2:
            return None
        return cls(
            np.array([one[0] for one in found]),
            np.array([one[1] for one in found]),
            np.stack([one[2] for one in found], axis=1),
        )

    def log_compute_at(self, losses: Floats, of: Floats, floor: float) -> Floats:
        """Return log FLOPs at which frontiers (R, budgets) reach losses (R).

        Between budgets, and beyond them, log reducible loss is a line in log compute.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.log(of - floor)
            wanted = np.log(losses - floor)
        found = np.full(len(losses), math.nan)
        # Numbers of Python, since arrays of a few budgets each cost more to make than to use.
        budgets_logs = self.log_budgets.tolist()
        for row, (height, goal) in enumerate(zip(heights.tolist(), wanted.tolist(), strict=True)):
            known = [(x, y) for x, y in zip(budgets_logs, height, strict=True) if math.isfinite(y)]
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
    one: _Frontier | None,
    base: _Frontier | None,
    budget: float,
    floor: float,
    level: float,
) -> Multiplier | None:
    if one is None or base is None:
        return None
    at = np.flatnonzero(np.isclose(base.log_budgets, math.log(budget)))
    if not len(at):
        return None
    index = int(at[0])
    lowest = float(min(one.losses.min(), base.losses.min()))

    def value(irreducible: float) -> float:
        goal = base.losses[index : index + 1]
        log_compute = one.log_compute_at(goal, one.losses[None], irreducible)
        return float(np.exp(log_compute[0] - math.log(budget)))

    centre = value(floor)
    if not math.isfinite(centre):
        return None
    logs = one.log_compute_at(base.draws[:, index], one.draws, floor) - math.log(budget)
    if np.isfinite(logs).sum() < 0.9 * len(logs):
        return None
    others = sorted({0.0, round(0.5 * lowest, 4), round(0.9 * lowest, 4)} - {floor})
    return Multiplier(
        interval=percentile_interval(centre, np.exp(logs), level=level),
        irreducible=floor,
        sensitivity=tuple((other, value(other)) for other in others),
    )


def _best_p(apart: Difference | None) -> tuple[Outcome, float | None]:
    """Return the outcome that the tests speak for most, with its p-value."""
    if apart is None:
        return "unresolved", None
    tests: Mapping[Outcome, float] = {
        "better": min(1.0, 2 * apart.p_superior),
        "worse": min(1.0, 2 * apart.p_inferior),
    }
    if apart.p_equivalent is not None:
        tests = {**tests, "equivalent": apart.p_equivalent}
    outcome = min(tests, key=tests.__getitem__)
    return outcome, tests[outcome]


def _verdict(
    one: NoisyMinimum,
    base: NoisyMinimum,
    budget: float,
    apart: Difference | None,
    multiplier: Multiplier | None,
    fraction: Estimate | None,
    *,
    estimates: Mapping[Estimator, float],
    margin: float | None,
    p: float | None,
    level: float,
) -> BudgetVerdict:
    outcome, _ = _best_p(apart)
    if p is None or p > 1 - level:
        outcome = "unresolved"
    return BudgetVerdict(
        baseline=base.variant,
        variant=one.variant,
        budget_flops=budget,
        outcome=outcome,
        difference=apart,
        estimates=estimates,
        multiplier=multiplier,
        forward_fraction=fraction,
        p_adjusted=p,
        margin=margin,
        reason="; ".join(f"{s.variant}: {s.reason}" for s in (one, base) if s.reason) or None,
    )
