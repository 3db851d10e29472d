"""Two variants at one budget: the difference of their minima, and compute at equal loss."""

from __future__ import annotations

import itertools
import math

import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.curves import CurveMinimum
from isoflop.fit.frame import TrainedSize, trained_sizes


class Comparison(Frozen):
    """How the minimum of a challenger stands to the baseline's at one budget."""

    baseline: str
    challenger: str
    budget_flops: float
    difference: float | None = None
    """Challenger's minimum loss less the baseline's, nats per token; negative is better."""
    relative_difference: float | None = None
    """The difference over the baseline's minimum loss."""
    parameter_ratio: float | None = None
    """Challenger's optimal parameters over the baseline's."""
    reason: str | None = None
    """Why there is no comparison."""


class LossMatch(Frozen):
    """How cheap a forward pass of the challenger reaches the baseline's minimum loss."""

    fraction: float | None = None
    """Of the optimal baseline's forward FLOPs, at the crossing of the challenger's curve."""
    fraction_reason: str | None = None
    """Why there is no fraction."""
    model: TrainedSize | None = None
    """Trained challenger with the fewest forward FLOPs whose loss is no higher."""
    model_fraction: float | None = None
    """Its share of the optimal baseline's forward FLOPs."""


def compare(baseline: CurveMinimum, challenger: CurveMinimum) -> Comparison:
    """Return the difference of two minima; without numbers when either was refused.

    Raises:
        ValueError: the minima are of different budgets or estimators.
    """
    one, two = baseline.minimum, challenger.minimum
    if baseline.budget_flops != challenger.budget_flops or one.estimator != two.estimator:
        raise ValueError(
            f"minima are by {one.estimator} at {baseline.budget_flops:g} and by {two.estimator} "
            f"at {challenger.budget_flops:g} FLOPs; expected the same of both"
        )
    difference = relative = ratio = reason = None
    if one.loss is None or two.loss is None or one.parameters is None or two.parameters is None:
        reason = "; ".join(
            f"{side.variant}: {side.minimum.message}"
            for side in (baseline, challenger)
            if side.minimum.loss is None
        )
    else:
        difference = two.loss - one.loss
        relative = difference / one.loss
        ratio = two.parameters / one.parameters
    return Comparison(
        baseline=baseline.variant,
        challenger=challenger.variant,
        budget_flops=baseline.budget_flops,
        difference=difference,
        relative_difference=relative,
        parameter_ratio=ratio,
        reason=reason,
    )


def loss_matching(table: pd.DataFrame, baseline: CurveMinimum, challenger: str) -> LossMatch:
    """Return the share of the optimal baseline's forward FLOPs that gives its loss.

    The challenger's ladder, seeds averaged, is walked from the cheapest forward pass up; between
    two sizes the loss is a line in log forward FLOPs, and the first crossing counts. A line lies
    above a convex curve, so the fraction errs on the high side.

    Args:
        table: as `frame` makes it.
        baseline: the baseline's minimum at the budget.
        challenger: name of the other variant.
    """
    target, optimal = baseline.minimum.loss, baseline.forward_flops
    if target is None or optimal is None:
        return LossMatch(
            fraction_reason=f"{baseline.variant} has no minimum: {baseline.minimum.message}"
        )
    sizes = sorted(
        trained_sizes(table, challenger, baseline.budget_flops), key=lambda one: one.forward_flops
    )
    model = next((one for one in sizes if one.loss <= target), None)
    fraction, reason = _crossing([one for one in sizes if one.on_ladder], target, optimal)
    return LossMatch(
        fraction=fraction,
        fraction_reason=reason,
        model=model,
        model_fraction=None if model is None else model.forward_flops / optimal,
    )


def _crossing(
    sizes: list[TrainedSize], target: float, optimal: float
) -> tuple[float | None, str | None]:
    if not sizes:
        return None, "no finished runs"
    if sizes[0].loss <= target:
        below = sizes[0].forward_flops / optimal
        return None, f"even the cheapest size reaches the loss; the fraction is below {below:.3g}"
    for before, after in itertools.pairwise(sizes):
        if after.loss <= target < before.loss:
            share = (before.loss - target) / (before.loss - after.loss)
            step = math.log(after.forward_flops / before.forward_flops)
            return before.forward_flops * math.exp(share * step) / optimal, None
    lowest = min(one.loss for one in sizes)
    return None, f"never reaches {target:.4f}; its lowest loss is {lowest:.4f}"
