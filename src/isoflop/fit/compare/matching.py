"""Two variants at one budget: the difference of their minima, and compute at equal loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.curves.minima import CurveMinimum
from isoflop.fit.intervals import Floats, draws_interval
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.tables.frame import curve_rows

CROSSING_SHARE = 0.9
"""Copies of the curves that must cross, below which the interval would leave out its own tail."""


@dataclass(frozen=True)
class Comparison:
    """How the minimum of a challenger stands to the baseline's at one budget."""

    difference: float | None = None
    """Challenger's minimum loss less the baseline's, nats per token; negative is better."""
    relative_difference: float | None = None
    """The difference over the baseline's minimum loss."""
    parameter_ratio: float | None = None
    """Challenger's optimal parameters over the baseline's."""
    reason: str | None = None
    """Why there is no comparison."""


def compare(baseline: CurveMinimum, challenger: CurveMinimum) -> Comparison:
    """Return the difference of two minima; without numbers when either was refused.

    Raises:
        ValueError: the minima are of different budgets or estimators.
    """
    one, two = baseline, challenger
    if one.budget_flops != two.budget_flops or one.estimator != two.estimator:
        raise ValueError(
            f"minima are by {one.estimator} at {one.budget_flops:g} and by {two.estimator} "
            f"at {two.budget_flops:g} FLOPs; expected the same of both"
        )
    if one.loss is None or two.loss is None or one.parameters is None or two.parameters is None:
        lacking = [side for side in (one, two) if side.loss is None]
        return Comparison(reason="; ".join(f"{side.variant}: {side.message}" for side in lacking))
    apart = two.loss - one.loss
    return Comparison(apart, apart / one.loss, two.parameters / one.parameters)


def loss_matching(
    table: pd.DataFrame,
    baseline: CurveMinimum,
    challenger: str,
    *,
    draws: CurveDraws | None = None,
    level: float = LEVEL,
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
        level: probability that the interval is to hold.
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
    if not base or not noisy:
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
    return draws_interval(found.value, np.exp(crossing), level=level)


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
