"""The published claims about Mixture-of-Depths at one budget, judged at the measured noise.

A claim is held when the interval of the difference lies on the claimed side of zero, not held
when it lies on the other, and unresolved otherwise. "At or below" and "reaches" are judged in the
same way: a difference that cannot be told from zero is no evidence that they match.
"""

from __future__ import annotations

import math
from typing import Literal

import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.seeds import NoisyMinimum, minimum_difference, noisy_minimum
from isoflop.fit.intervals import WithError, difference
from isoflop.fit.tables.frame import one_budget, trained_sizes
from isoflop.papers.numbered import optimal_size

Verdict = Literal["held", "not held", "unresolved"]


class Roles(Frozen):
    """Which variant of a study plays which part; None where the study has none."""

    baseline: str
    sparse: str
    """Mixture-of-Depths at the small capacity (12.5% in the paper)."""
    dense: str | None = None
    """Mixture-of-Depths at the large capacity (50% in the paper)."""
    random: str | None = None
    """The control in which noise chooses the tokens."""


class Claim(Frozen):
    """A published claim and what the study says about it."""

    statement: str
    verdict: Verdict
    numbers: str
    """What the verdict rests on, or why there is none, in words."""
    interval: Estimate | None = None
    """Of the difference that was judged; below zero is the claimed side."""


def mod_claims(
    table: pd.DataFrame, roles: Roles, *, budget_flops: float | None = None
) -> tuple[Claim, ...]:
    """Judge the claims of arXiv 2404.02258, Figure 3, one by one.

    Args:
        table: as `frame` makes it; `loss` is the causal test loss.
        roles: names of the variants.
        budget_flops: which budget; may be left out when there is only one.

    Returns:
        Up to six claims, of those variants that the study has: sparse below baseline, dense below
        baseline, sparse optimum at more parameters, random worst, sparse at or below dense,
        baseline's loss at fewer forward FLOPs. Their intervals are not corrected for their number.

    Raises:
        ValueError: the budget is not in the table, or has to be named.
    """
    budget = one_budget(table, budget_flops)
    base, sparse = (noisy_minimum(table, name, budget) for name in (roles.baseline, roles.sparse))
    dense, random = (
        None if name is None else noisy_minimum(table, name, budget)
        for name in (roles.dense, roles.random)
    )
    claims = [_lower("is below", sparse, base)]
    if dense is not None:
        claims.append(_lower("is below", dense, base))
    claims.append(_larger(sparse, base))
    if random is not None:
        others = [base, sparse] if dense is None else [base, sparse, dense]
        claims.append(_worst(random, others))
    if dense is not None:
        claims.append(_lower("is at or below", sparse, dense))
    return (*claims, _cheaper(table, budget, sparse, base))


def _lower(relation: str, one: NoisyMinimum, other: NoisyMinimum) -> Claim:
    statement = f"{one.variant} {relation} {other.variant}"
    found = minimum_difference(one, other)
    if found is None or one.loss is None or other.loss is None:
        return _unresolved(statement, _reasons(one, other))
    estimate, paired = found
    interval = estimate.interval()
    seeds = f"{len(one.seed_deviations)} seeds, paired"
    if not paired:
        seeds = f"{len(one.seed_deviations)} and {len(other.seed_deviations)} seeds"
    return _judged(
        statement,
        interval,
        f"{one.variant} reaches {one.loss.value:.4f} and {other.variant} {other.loss.value:.4f}, "
        f"a difference of {interval.words('+.4f')} nats per token over {seeds}",
    )


def _larger(one: NoisyMinimum, base: NoisyMinimum) -> Claim:
    statement = f"the optimum of {one.variant} has more parameters than that of {base.variant}"
    if one.log_parameters is None or base.log_parameters is None:
        reasons = [
            f"{side.variant}: {side.minimum.message if lost else 'its size is not resolved'}"
            for side in (one, base)
            for lost in (side.minimum.loss is None,)
            if side.log_parameters is None
        ]
        return _unresolved(statement, "; ".join(reasons))
    interval = difference(base.log_parameters, one.log_parameters).interval()
    ratio, low, high = (math.exp(-x) for x in (interval.value, *reversed(interval.ends)))
    return _judged(
        statement,
        interval,
        f"the optimum of {one.variant} is at {math.exp(one.log_parameters.value):,.0f} parameters, "
        f"{ratio:.2f} [{low:.2f}, {high:.2f}] times the {math.exp(base.log_parameters.value):,.0f} "
        f"of {base.variant}",
    )


def _worst(random: NoisyMinimum, others: list[NoisyMinimum]) -> Claim:
    pairs = [_lower("is below", other, random) for other in others]
    # All must hold and one failure refutes, so the pair that decides is the weakest.
    order: tuple[Verdict, ...] = ("not held", "unresolved", "held")
    weakest = min(
        pairs,
        key=lambda pair: (
            order.index(pair.verdict),
            -pair.interval.value if pair.interval else -math.inf,
        ),
    )
    return weakest.model_copy(update={"statement": f"{random.variant} is the worst"})


def _cheaper(table: pd.DataFrame, budget: float, one: NoisyMinimum, base: NoisyMinimum) -> Claim:
    statement = (
        f"a {one.variant} model reaches the loss of the optimal {base.variant} "
        "with fewer forward FLOPs"
    )
    optimal = optimal_size(table, base.variant, budget)
    if optimal.model is None:
        return _unresolved(statement, optimal.reason or "")
    if base.loss is None or one.run_spread is None:
        return _unresolved(statement, _reasons(base, one))
    limit = optimal.model.forward_flops
    cheaper = [s for s in trained_sizes(table, one.variant, budget) if s.forward_flops < limit]
    if not cheaper:
        return _unresolved(statement, f"no {one.variant} with fewer forward FLOPs was trained")
    best = min(cheaper, key=lambda size: size.loss)
    estimate = WithError(
        value=best.loss,
        error=one.run_spread / math.sqrt(len(best.seeds)),
        degrees_of_freedom=one.run_spread_freedom,
    )
    interval = difference(estimate, base.loss).interval()
    return _judged(
        statement,
        interval,
        f"{one.variant} of {best.parameters:,.0f} parameters, at {best.forward_flops / limit:.2f} "
        f"of the forward FLOPs, has {best.loss:.4f} against {base.loss.value:.4f}, a difference of "
        f"{interval.words('+.4f')} nats per token",
    )


def _judged(statement: str, interval: Estimate, numbers: str) -> Claim:
    verdicts: dict[int, Verdict] = {-1: "held", 0: "unresolved", 1: "not held"}
    verdict = verdicts[interval.side]
    return Claim(statement=statement, verdict=verdict, numbers=f"{numbers}.", interval=interval)


def _unresolved(statement: str, reason: str) -> Claim:
    return Claim(statement=statement, verdict="unresolved", numbers=f"{reason}.")


def _reasons(*sides: NoisyMinimum) -> str:
    return "; ".join(f"{one.variant}: {one.reason}" for one in sides if one.reason)
