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


class NumberedModel(Frozen):
    """One of the four models of a figure, or why it is missing."""

    number: int
    rule: str
    model: TrainedSize | None = None
    reason: str | None = None


def figure3_models(
    table: pd.DataFrame, baseline: str, challenger: str, *, budget_flops: float | None = None
) -> tuple[NumberedModel, ...]:
    """Return Figure 3's models 1 to 4.

    Args:
        table: as `frame` makes it.
        baseline: name of the baseline variant.
        challenger: name of the routed variant.
        budget_flops: which budget; may be left out when there is only one.

    Raises:
        ValueError: the budget is not in the table, or has to be named.
    """
    budget = one_budget(table, budget_flops)
    first = optimal_size(table, baseline, budget, number=1)
    second = _about_twice(trained_sizes(table, baseline, budget), first)
    routed = trained_sizes(table, challenger, budget)
    return (
        first,
        second,
        _of_shape(3, routed, challenger, first),
        _of_shape(4, routed, challenger, second),
    )


def figure4_models(
    table: pd.DataFrame, baseline: str, challenger: str, *, budget_flops: float | None = None
) -> tuple[NumberedModel, ...]:
    """Return Figure 4's models 1 to 4; arguments and errors as for `figure3_models`."""
    budget = one_budget(table, budget_flops)
    first = optimal_size(table, baseline, budget, number=1)
    third = _cheapest_match(trained_sizes(table, challenger, budget), challenger, first)
    second = _nearest_flops(trained_sizes(table, baseline, budget), baseline, third)
    return first, second, third, optimal_size(table, challenger, budget, number=4)


def optimal_size(
    table: pd.DataFrame, variant: str, budget_flops: float, *, number: int = 1
) -> NumberedModel:
    """Return the trained size of a variant's ladder with the lowest mean loss over seeds."""
    rule = f"{variant} at its optimum"
    ladder = [one for one in trained_sizes(table, variant, budget_flops) if one.on_ladder]
    if not ladder:
        return _missing(number, rule, f"no finished runs of {variant}")
    best = min(ladder, key=lambda one: one.loss)
    if best in (ladder[0], ladder[-1]):
        return _missing(
            number,
            rule,
            f"the lowest loss of {variant} is at an end of its sizes, "
            f"{best.parameters:,.0f} parameters",
        )
    return NumberedModel(number=number, rule=rule, model=best)


def _about_twice(sizes: tuple[TrainedSize, ...], first: NumberedModel) -> NumberedModel:
    rule = "baseline of about twice the size of 1"
    if first.model is None:
        return _missing(2, rule, "model 1 is missing")
    wanted = 2 * first.model.parameters
    near = min(sizes, key=lambda one: abs(math.log(one.parameters / wanted)))
    if not TWICE[0] <= near.parameters / first.model.parameters <= TWICE[1]:
        return _missing(2, rule, f"none was trained near {wanted:,.0f} parameters")
    return NumberedModel(number=2, rule=rule, model=near)


def _of_shape(
    number: int, sizes: tuple[TrainedSize, ...], challenger: str, like: NumberedModel
) -> NumberedModel:
    rule = f"{challenger} in the shape of {like.number}"
    if like.model is None:
        return _missing(number, rule, f"model {like.number} is missing")
    blocks, width = like.model.blocks, like.model.width
    for one in sizes:
        if (one.blocks, one.width) == (blocks, width):
            return NumberedModel(number=number, rule=rule, model=one)
    return _missing(number, rule, f"{blocks} blocks of width {width} were not trained")


def _cheapest_match(
    sizes: tuple[TrainedSize, ...], challenger: str, first: NumberedModel
) -> NumberedModel:
    rule = f"{challenger} with the fewest forward FLOPs whose loss is no higher than 1's"
    if first.model is None:
        return _missing(3, rule, "model 1 is missing")
    matching = [one for one in sizes if one.loss <= first.model.loss]
    if not matching:
        return _missing(3, rule, f"none reaches the loss of model 1, {first.model.loss:.4f}")
    return NumberedModel(
        number=3, rule=rule, model=min(matching, key=lambda one: one.forward_flops)
    )


def _nearest_flops(
    sizes: tuple[TrainedSize, ...], baseline: str, third: NumberedModel
) -> NumberedModel:
    rule = f"{baseline} whose forward FLOPs are nearest to 3's"
    if third.model is None:
        return _missing(2, rule, "model 3 is missing")
    flops = third.model.forward_flops
    near = min(sizes, key=lambda one: abs(math.log(one.forward_flops / flops)))
    return NumberedModel(number=2, rule=rule, model=near)


def _missing(number: int, rule: str, reason: str) -> NumberedModel:
    return NumberedModel(number=number, rule=rule, reason=reason)
