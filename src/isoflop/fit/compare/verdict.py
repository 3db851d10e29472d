"""Is one variant better than another at the same compute, by how much, and how sure is that?

The difference of two minima is judged on seeds: where both variants were trained with the same
ones, seed by seed. What it is worth is said as a compute multiplier: the share of its compute at
which a variant reaches the other's loss.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.compare.matching import loss_matching
from isoflop.fit.curves.minima import CurveMinimum, minima
from isoflop.fit.curves.seeds import NoisyMinimum, minimum_difference, noisy_minimum
from isoflop.fit.intervals import Floats, Outcome, draws_interval, holm
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.tables.frame import budgets


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
    settings: FitSettings | None = None,
    *,
    irreducible: float | None = None,
    draws: CurveDraws | None = None,
    found: Iterable[CurveMinimum] | None = None,
) -> tuple[BudgetVerdict, ...]:
    """Return the verdict on every other variant at every budget.

    A variant is better, worse or equivalent only where the test of that stands at 1 - `level`
    after Holm's correction for all comparisons made here.

    Args:
        table: as `frame` or `run_table` makes it.
        baseline: the variant that the others are held against.
        settings: margin, level, and the copies behind the intervals of multipliers.
        irreducible: loss at infinite compute that multipliers assume; None for none, 0.
        draws: noisy minima of the table, where they have been drawn already.
        found: minima of the table by every estimator, where they have been fitted already.

    Raises:
        ValueError: the baseline is not in the table.
    """
    names = table["variant"].drop_duplicates().tolist()
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    asked = settings or FitSettings()
    drawn = draws or CurveDraws(table, asked)
    fitted = tuple(minima(table) if found is None else found)
    parabolas = [one for one in fitted if one.minimum.estimator == "parabola"]
    optima = {
        (one.variant, one.budget_flops): one for one in parabolas or minima(table, ["parabola"])
    }
    noisy = {}
    for name in names:
        for budget in budgets(table):
            known = optima.get((name, budget))
            noisy[name, budget] = noisy_minimum(
                table,
                name,
                budget,
                level=asked.level,
                minimum=None if known is None else known.minimum,
            )
    frontiers = {name: _Frontier.measured(name, noisy, drawn) for name in names}
    open_verdicts = []
    for budget in budgets(table):
        base = noisy[baseline, budget]
        for name in names:
            if name == baseline:
                continue
            one = noisy[name, budget]
            apart = _difference(one, base, asked)
            multiplier = fraction = None
            if apart is not None:
                ours, theirs = frontiers[name], frontiers[baseline]
                multiplier = _multiplier(ours, theirs, budget, irreducible or 0.0, asked.level)
            if (baseline, budget) in optima:
                optimum = optima[baseline, budget]
                match = loss_matching(table, optimum, name, draws=drawn, level=asked.level)
                fraction = match.interval
            reasons = [f"{s.variant}: {s.reason}" for s in (one, base) if s.reason]
            open_verdicts.append(
                BudgetVerdict(
                    baseline=baseline,
                    variant=name,
                    budget_flops=budget,
                    outcome="unresolved",
                    difference=apart,
                    estimates=_estimates(fitted, name, baseline, budget),
                    multiplier=multiplier,
                    forward_fraction=fraction,
                    margin=asked.margin,
                    reason="; ".join(reasons) or None,
                )
            )
    return _judged(open_verdicts, asked.level)


def _judged(found: Sequence[BudgetVerdict], level: float) -> tuple[BudgetVerdict, ...]:
    """Return verdicts with their outcomes, corrected for how many there are."""
    likeliest = [_best_p(one.difference) for one in found]
    adjusted = holm([p for _, p in likeliest])
    told = []
    for one, (outcome, _), p in zip(found, likeliest, adjusted, strict=True):
        stands = p is not None and p <= 1 - level
        update = {"outcome": outcome if stands else "unresolved", "p_adjusted": p}
        told.append(one.model_copy(update=update))
    return tuple(told)


def _estimates(
    found: Sequence[CurveMinimum], variant: str, baseline: str, budget: float
) -> dict[Estimator, float]:
    losses = {
        (at.variant, at.minimum.estimator): at.minimum.loss
        for at in found
        if at.budget_flops == budget and at.minimum.loss is not None
    }
    return {
        estimator: loss - losses[baseline, estimator]
        for (name, estimator), loss in losses.items()
        if name == variant and (baseline, estimator) in losses
    }


def _difference(one: NoisyMinimum, base: NoisyMinimum, settings: FitSettings) -> Difference | None:
    found = minimum_difference(one, base)
    if found is None:
        return None
    estimate, paired = found
    return Difference(
        interval=estimate.interval(settings.level),
        paired=paired,
        p_superior=estimate.p_below(),
        p_inferior=estimate.p_above(),
        p_equivalent=estimate.p_equivalent(settings.margin),
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
        interval=draws_interval(centre, np.exp(logs), level=level),
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
