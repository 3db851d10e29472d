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
    base, routed = (trained_sizes(table, name, budget) for name in (baseline, challenger))
    first = _optimum(base, baseline)
    second = _about_twice(base, first)
    return (
        _numbered(1, f"{baseline} at its optimum", first),
        _numbered(2, "baseline of about twice the size of 1", second),
        _numbered(3, f"{challenger} in the shape of 1", _of_shape(routed, 1, first)),
        _numbered(4, f"{challenger} in the shape of 2", _of_shape(routed, 2, second)),
    )


def figure4_models(
    table: pd.DataFrame, baseline: str, challenger: str, *, budget_flops: float | None = None
) -> tuple[NumberedModel, ...]:
    """Return Figure 4's models 1 to 4; arguments and errors as for `figure3_models`."""
    budget = one_budget(table, budget_flops)
    base, routed = (trained_sizes(table, name, budget) for name in (baseline, challenger))
    first = _optimum(base, baseline)
    third = _cheapest_match(routed, first)
    least = f"{challenger} with the fewest forward FLOPs whose loss is no higher than 1's"
    return (
        _numbered(1, f"{baseline} at its optimum", first),
        _numbered(2, f"{baseline} whose forward FLOPs are nearest to 3's", _as_cheap(base, third)),
        _numbered(3, least, third),
        _numbered(4, f"{challenger} at its optimum", _optimum(routed, challenger)),
    )


def optimal_size(table: pd.DataFrame, variant: str, budget_flops: float) -> NumberedModel:
    """Return the trained size of a variant's ladder with the lowest mean loss over seeds."""
    found = _optimum(trained_sizes(table, variant, budget_flops), variant)
    return _numbered(1, f"{variant} at its optimum", found)


_Found = TrainedSize | str
"""A model, or why it is missing."""
_Sizes = tuple[TrainedSize, ...]


def _numbered(number: int, rule: str, found: _Found) -> NumberedModel:
    told = {"reason": found} if isinstance(found, str) else {"model": found}
    return NumberedModel.model_validate({"number": number, "rule": rule, **told})


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
