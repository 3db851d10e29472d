"""Two variants at one budget: the difference of their minima, and compute at equal loss."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.intervals import Floats, draws_interval
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.tables.frame import TrainedSize, trained_sizes

CROSSING_SHARE = 0.9
"""Copies of the curves that must cross, below which the interval would leave out its own tail."""


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
    interval: Estimate | None = None
    """Of the fraction, by the noise of both curves; None where nothing tells it."""
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


def loss_matching(
    table: pd.DataFrame,
    baseline: CurveMinimum,
    challenger: str,
    *,
    draws: CurveDraws | None = None,
    level: float = LEVEL,
) -> LossMatch:
    """Return the share of the optimal baseline's forward FLOPs that gives its loss.

    The challenger's ladder, seeds averaged, is walked from the cheapest forward pass up; between
    two sizes the loss is a line in log forward FLOPs, and the first crossing counts. A line lies
    above a convex curve, so the fraction errs on the high side.

    Args:
        table: as `frame` makes it.
        baseline: the baseline's minimum at the budget.
        challenger: name of the other variant.
        draws: noise of the curves, which the interval is made from; none without.
        level: probability that the interval is to hold.
    """
    target, optimal = baseline.minimum.loss, baseline.forward_flops
    if target is None or optimal is None:
        return LossMatch(
            fraction_reason=f"{baseline.variant} has no minimum: {baseline.minimum.message}"
        )
    budget = baseline.budget_flops
    sizes = sorted(trained_sizes(table, challenger, budget), key=lambda one: one.forward_flops)
    model = next((one for one in sizes if one.loss <= target), None)
    ladder = [one for one in sizes if one.on_ladder]
    fraction, interval = None, None
    reason = _no_crossing(ladder, target, optimal)
    if reason is None:
        losses = np.array([[one.loss for one in ladder]])
        log_flops = np.log([one.forward_flops for one in ladder])
        crossing = _crossings(log_flops, losses, np.array([target]))
        fraction = float(np.exp(crossing[0]) / optimal)
        if draws is not None:
            interval = _fraction_interval(table, fraction, baseline, ladder, draws, level)
    return LossMatch(
        fraction=fraction,
        interval=interval,
        fraction_reason=reason,
        model=model,
        model_fraction=None if model is None else model.forward_flops / optimal,
    )


def _no_crossing(ladder: list[TrainedSize], target: float, optimal: float) -> str | None:
    """Return why a ladder, the cheapest size first, has no crossing; None where it has one."""
    if not ladder:
        return "no finished runs"
    if ladder[0].loss <= target:
        below = ladder[0].forward_flops / optimal
        return f"even the cheapest size reaches the loss; the fraction is below {below:.3g}"
    lowest = min(one.loss for one in ladder)
    if lowest > target:
        return f"never reaches {target:.4f}; its lowest loss is {lowest:.4f}"
    return None


def _crossings(log_flops: Floats, losses: Floats, targets: Floats) -> Floats:
    """Return log forward FLOPs (R,) at which curves (R, S) first fall to targets (R,), or NaN.

    Args:
        log_flops: of each size, ascending; (S,).
        losses: of each size.
        targets: what is to be reached.
    """
    goal = targets[:, None]
    falls = (losses[:, :-1] > goal) & (losses[:, 1:] <= goal)
    # A curve that starts below its goal has been there already.
    found = falls.any(axis=1) & (losses[:, 0] > targets)
    at, rows = falls.argmax(axis=1), np.arange(len(losses))
    before, after = losses[rows, at], losses[rows, at + 1]
    share = (before - targets) / np.where(found, before - after, 1.0)
    return np.where(found, log_flops[at] + share * np.diff(log_flops)[at], math.nan)


def _fraction_interval(
    table: pd.DataFrame,
    fraction: float,
    baseline: CurveMinimum,
    ladder: list[TrainedSize],
    draws: CurveDraws,
    level: float,
) -> Estimate | None:
    """Return the interval of a fraction; None where too few copies of the curves cross."""
    budget = baseline.budget_flops
    base = draws.minima(baseline.variant, budget)
    noisy = draws.size_losses(ladder[0].variant, budget)
    if base is None or noisy is None:
        return None
    sizes, losses = noisy
    flops = {one.parameters: one.forward_flops for one in ladder}
    # Sizes that are nearly the same are one of the curve's, between those of the ladder.
    trained = np.array(sorted(flops))
    of_trained = np.array([flops[size] for size in trained.tolist()])
    log_flops = np.interp(np.log(sizes), np.log(trained), np.log(of_trained))
    order = np.argsort(log_flops)
    own = [one for one in trained_sizes(table, baseline.variant, budget) if one.on_ladder]
    log_optimal = np.interp(
        base[0],
        np.log([one.parameters for one in own]),
        np.log([one.forward_flops for one in own]),
    )
    targets = np.where(np.isfinite(base[1]), base[1], -math.inf)
    crossing = _crossings(log_flops[order], losses[:, order], targets) - log_optimal
    if np.isfinite(crossing).mean() < CROSSING_SHARE:
        return None
    return draws_interval(fraction, np.exp(crossing), level=level)
