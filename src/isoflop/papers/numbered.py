"""The four models that each published figure singles out, by fixed rules.

Figure 3 (arXiv 2404.02258): 1 is the baseline at its optimum, 2 a baseline of about twice its
size, 3 and 4 the challenger in the shapes of 1 and 2. Figure 4: 1 is the optimal baseline, 4 the
optimal challenger, 3 the challenger with the fewest forward FLOPs whose loss is no higher than
1's, 2 the baseline whose forward FLOPs are nearest to 3's. "Optimal" is the trained size with the
lowest mean loss over seeds, and there is none when it is the smallest or largest of its ladder.
"""

from __future__ import annotations

import math

import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.tables.frame import TrainedSize, one_budget, trained_sizes

TWICE = (math.sqrt(2), 2 * math.sqrt(2))
"""Ratios of size that count as about twice."""

_Found = TrainedSize | str
"""A model, or why it is missing."""
_Sizes = tuple[TrainedSize, ...]


class NumberedModel(Frozen):
    """One of the four models of a figure, or why it is missing."""

    number: int
    rule: str
    model: TrainedSize | None = None
    reason: str | None = None


def numbered_models(
    table: pd.DataFrame, baseline: str, challenger: str, *, budget_flops: float | None = None
) -> tuple[tuple[NumberedModel, ...], tuple[NumberedModel, ...]]:
    """Return Figure 3's models 1 to 4, and Figure 4's.

    Args:
        table: as `frame` makes it.
        baseline: name of the baseline variant.
        challenger: name of the routed variant.
        budget_flops: which budget; may be left out when there is only one.

    Raises:
        ValueError: the budget is not in the table, or has to be named.
    """
    budget = one_budget(table, budget_flops)
    base, routed = (trained_sizes(table, name, budget) for name in (baseline, challenger))
    first = _optimum(base, baseline)
    second = _about_twice(base, first)
    match = _cheapest_match(routed, first)
    figure3 = {
        f"{baseline} at its optimum": first,
        "baseline of about twice the size of 1": second,
        f"{challenger} in the shape of 1": _of_shape(routed, 1, first),
        f"{challenger} in the shape of 2": _of_shape(routed, 2, second),
    }
    figure4 = {
        f"{baseline} at its optimum": first,
        f"{baseline} whose forward FLOPs are nearest to 3's": _as_cheap(base, match),
        f"{challenger} with the fewest forward FLOPs whose loss is no higher than 1's": match,
        f"{challenger} at its optimum": _optimum(routed, challenger),
    }
    return _numbered(figure3), _numbered(figure4)


def optimal_size(table: pd.DataFrame, variant: str, budget_flops: float) -> NumberedModel:
    """Return the trained size of a variant's ladder with the lowest mean loss over seeds."""
    found = _optimum(trained_sizes(table, variant, budget_flops), variant)
    return _numbered({f"{variant} at its optimum": found})[0]


def _numbered(by_rule: dict[str, _Found]) -> tuple[NumberedModel, ...]:
    return tuple(
        NumberedModel(number=number, rule=rule, reason=found)
        if isinstance(found, str)
        else NumberedModel(number=number, rule=rule, model=found)
        for number, (rule, found) in enumerate(by_rule.items(), 1)
    )


def _optimum(sizes: _Sizes, variant: str) -> _Found:
    ladder = [one for one in sizes if one.on_ladder]
    if not ladder:
        return f"no finished runs of {variant}"
    best = min(ladder, key=lambda one: one.loss)
    if best in (ladder[0], ladder[-1]):
        return (
            f"the lowest loss of {variant} is at an end of its sizes, "
            f"{best.parameters:,.0f} parameters"
        )
    return best


def _about_twice(sizes: _Sizes, first: _Found) -> _Found:
    if isinstance(first, str):
        return "model 1 is missing"
    wanted = 2 * first.parameters
    near = min(sizes, key=lambda one: abs(math.log(one.parameters / wanted)))
    if not TWICE[0] <= near.parameters / first.parameters <= TWICE[1]:
        return f"none was trained near {wanted:,.0f} parameters"
    return near


def _of_shape(sizes: _Sizes, number: int, like: _Found) -> _Found:
    if isinstance(like, str):
        return f"model {number} is missing"
    missing = f"{like.blocks} blocks of width {like.width} were not trained"
    alike = (one for one in sizes if (one.blocks, one.width) == (like.blocks, like.width))
    return next(alike, missing)


def _cheapest_match(sizes: _Sizes, first: _Found) -> _Found:
    if isinstance(first, str):
        return "model 1 is missing"
    matching = [one for one in sizes if one.loss <= first.loss]
    missing = f"none reaches the loss of model 1, {first.loss:.4f}"
    return min(matching, key=lambda one: one.forward_flops) if matching else missing


def _as_cheap(sizes: _Sizes, third: _Found) -> _Found:
    if isinstance(third, str):
        return "model 3 is missing"
    flops = third.forward_flops
    return min(sizes, key=lambda one: abs(math.log(one.forward_flops / flops)))
