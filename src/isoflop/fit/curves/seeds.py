"""How far the seed moves a minimum: what a claim about two variants is judged against."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from pydantic import Field
from scipy import stats

from isoflop.config import Frozen
from isoflop.estimate import LEVEL
from isoflop.fit.curves.moving import curve_minimum
from isoflop.fit.intervals import WithError, difference, mean_estimate
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.parabola import Parabola, fit_parabola
from isoflop.fit.tables.frame import TrainedSize, curve_rows, trained_sizes

NEAREST = 3
"""Replicated sizes that the seeds are averaged over: a parabola's minimum rests on about as many,
so averaging over more would understate its error."""


class NoisyMinimum(Frozen):
    """A variant's minimum by the parabola, with what the seeds say about its error."""

    variant: str
    minimum: Minimum
    loss: WithError | None = None
    """Minimum loss; its error from how whole seeds lie above or below the others."""
    loss_by_scatter: WithError | None = None
    """The same loss; its error from how runs, less what their seed is off by, scatter about the
    parabola. It holds what seeds cannot show: how far the parabola lies from the curve."""
    log_parameters: WithError | None = None
    """Log of the optimal parameters; its error from the runs' scatter about the parabola."""
    run_spread: float | None = None
    """Standard deviation of one run about the mean of its size, pooled over sizes."""
    run_spread_freedom: int = 0
    """Degrees of freedom of `run_spread`."""
    seeds: int = 0
    """Seeds near the minimum."""
    seed_deviations: dict[int, float] = Field(default_factory=dict)
    """How far each of them lies above the others, averaged over sizes, nats per token."""
    reason: str | None = None
    """Why an estimate is missing."""


def noisy_minimum(
    table: pd.DataFrame,
    variant: str,
    budget_flops: float,
    *,
    level: float = LEVEL,
    minimum: Minimum | None = None,
) -> NoisyMinimum:
    """Return the minimum of a variant at a budget with the errors of its loss and its size.

    The loss: a seed's deviation is the mean, over the replicated sizes nearest the minimum, of
    its loss less the mean of its size. Those deviations, one per seed, are the sample; a seed
    that is lucky at every size is one observation, not three. The size: the delta method on the
    parabola, none where its curvature does not differ from zero at `level`. `minimum` is that by
    the parabola, where it has been found already.
    """
    rows = curve_rows(table, variant, budget_flops)
    if rows.empty:
        minimum = Minimum(estimator="parabola", status="too_few", message="no finished runs")
        return NoisyMinimum(variant=variant, minimum=minimum, reason=minimum.message)
    n, y = rows["parameters"].to_numpy(), rows["loss"].to_numpy()
    minimum = minimum or curve_minimum(rows, "parabola")
    if minimum.loss is None:
        return NoisyMinimum(variant=variant, minimum=minimum, reason=minimum.message)
    curve = fit_parabola(n, y)
    sizes = sorted(
        (
            one
            for one in trained_sizes(table, variant, budget_flops)
            if one.on_ladder and curve.smallest <= one.parameters <= curve.largest
        ),
        key=lambda one: abs(math.log(one.parameters / curve.parameters)),
    )
    by_seed = _seed_deviations(sizes)
    deviations = np.array(list(by_seed.values()))
    run_spread, freedom = _run_spread(sizes)
    count = len(deviations)
    loss = None
    if count >= 2:
        loss = mean_estimate(deviations).model_copy(update={"value": minimum.loss})
    return NoisyMinimum(
        variant=variant,
        minimum=minimum,
        loss=loss,
        loss_by_scatter=_loss_by_scatter(rows, by_seed, minimum.loss),
        log_parameters=_log_parameters(curve, level),
        run_spread=run_spread,
        run_spread_freedom=freedom,
        seeds=count,
        seed_deviations=by_seed,
        reason=None if loss else "one seed near the minimum, so its noise is not known",
    )


def minimum_difference(one: NoisyMinimum, other: NoisyMinimum) -> tuple[WithError, bool] | None:
    """Return `one`'s minimum loss less `other`'s, and whether it was taken seed by seed.

    Where both have the same seeds, two or more, each seed gives a difference of its own: what
    moves both alike, such as the order of the data, cancels. Else the errors add up. Where runs
    lie further from their parabolas than seeds tell, that makes the error. None where either
    loss has no error by seeds.
    """
    if one.loss is None or other.loss is None:
        return None
    seeds = sorted(one.seed_deviations)
    paired = len(seeds) >= 2 and seeds == sorted(other.seed_deviations)
    estimate = difference(one.loss, other.loss)
    if paired:
        apart = np.array([one.seed_deviations[s] - other.seed_deviations[s] for s in seeds])
        estimate = mean_estimate(apart).model_copy(update={"value": estimate.value})
    if one.loss_by_scatter is not None and other.loss_by_scatter is not None:
        by_scatter = difference(one.loss_by_scatter, other.loss_by_scatter)
        estimate = max(
            estimate, by_scatter, key=lambda found: found.interval().ends[1] - found.value
        )
    return estimate, paired


def _loss_by_scatter(
    rows: pd.DataFrame, seed_deviations: dict[int, float], loss: float
) -> WithError | None:
    off = rows["seed"].map(seed_deviations).fillna(0.0).to_numpy()
    curve = fit_parabola(rows["parameters"].to_numpy(), rows["loss"].to_numpy() - off)
    error = curve.loss_error
    free = curve.degrees_of_freedom - (len(seed_deviations) - 1)
    if error is None or free < 1 or curve.curvature <= 0:
        return None
    error *= math.sqrt(curve.degrees_of_freedom / free)
    return WithError(value=loss, error=error, degrees_of_freedom=free)


def _seed_deviations(sizes: list[TrainedSize]) -> dict[int, float]:
    """Return each seed's mean deviation; `sizes` come with the nearest to the minimum first."""
    seeds = max((one.seeds for one in sizes), key=len)
    replicated = [one for one in sizes if set(seeds) <= set(one.seeds)][:NEAREST]
    losses = np.array(
        [[one.seed_losses[one.seeds.index(seed)] for seed in seeds] for one in replicated]
    )
    deviations = (losses - losses.mean(axis=1, keepdims=True)).mean(axis=0)
    return dict(zip(seeds, deviations.tolist(), strict=True))


def _run_spread(sizes: list[TrainedSize]) -> tuple[float | None, int]:
    squares = sum(float(np.var(one.seed_losses)) * len(one.seed_losses) for one in sizes)
    free = sum(len(one.seed_losses) - 1 for one in sizes)
    return (math.sqrt(squares / free) if free else None), free


def _log_parameters(curve: Parabola, level: float) -> WithError | None:
    error, curvature_error = curve.log_parameters_error, curve.curvature_error
    if error is None or curvature_error is None:
        return None
    free = curve.degrees_of_freedom
    if curve.curvature <= float(stats.t.ppf((1 + level) / 2, free)) * curvature_error:
        return None
    return WithError(value=math.log(curve.parameters), error=error, degrees_of_freedom=free)
