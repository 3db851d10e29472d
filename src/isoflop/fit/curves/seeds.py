"""How far the seed moves a minimum: what a claim about two variants is judged against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from isoflop.estimate import LEVEL
from isoflop.fit.curves.moving import curve_minimum
from isoflop.fit.intervals import WithError, difference, mean_estimate
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.parabola import fit_parabola
from isoflop.fit.tables.frame import curve_rows

NEAREST = 3
"""Replicated sizes that the seeds are averaged over: a parabola's minimum rests on about as many,
so averaging over more would understate its error."""


@dataclass(frozen=True)
class NoisyMinimum:
    """A variant's minimum by the parabola, with what the seeds say about its error."""

    variant: str
    minimum: Minimum
    reason: str | None = None
    """Why an estimate is missing."""
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
    seed_deviations: Mapping[int, float] = field(default_factory=dict)
    """How far each seed near the minimum lies above the others, averaged over sizes, nats per
    token."""


def noisy_minimum(
    table: pd.DataFrame,
    variant: str,
    budget_flops: float,
    *,
    level: float = LEVEL,
    known: Minimum | None = None,
) -> NoisyMinimum:
    """Return the minimum of a variant at a budget with the errors of its loss and its size.

    The loss: a seed's deviation is the mean, over the replicated sizes nearest the minimum, of
    its loss less the mean of its size. Those deviations, one per seed, are the sample; a seed
    that is lucky at every size is one observation, not three. The size: the delta method on the
    parabola, none where its curvature does not differ from zero at `level`. `known` is the minimum
    by the parabola, where it has been found already.
    """
    rows = curve_rows(table, variant, budget_flops)
    if rows.empty:
        minimum = Minimum(estimator="parabola", status="too_few", message="no finished runs")
    else:
        minimum = known or curve_minimum(rows, "parabola")
    if minimum.loss is None:
        return NoisyMinimum(variant, minimum, minimum.message)
    curve = fit_parabola(rows["parameters"].to_numpy(), rows["loss"].to_numpy())
    shape = ["parameters", "blocks", "width"]
    near = rows[rows["parameters"].between(curve.smallest, curve.largest)]
    losses = near.groupby([*shape, "seed"])["loss"].mean()
    by_seed = losses.unstack()
    sizes = by_seed.index.get_level_values("parameters")
    by_seed = by_seed.iloc[np.argsort(np.abs(np.log(sizes / curve.parameters)), kind="stable")]
    off = by_seed.sub(by_seed.mean(axis=1), axis=0)
    free = int(by_seed.count().sum()) - len(by_seed)
    seeds = by_seed.iloc[int(by_seed.count(axis=1).argmax())].dropna().index
    replicated = by_seed[seeds].dropna().iloc[:NEAREST]
    deviations = replicated.sub(replicated.mean(axis=1), axis=0).mean()
    loss = None
    if len(seeds) >= 2:
        loss = mean_estimate(deviations).model_copy(update={"value": minimum.loss})
    size = None
    left = curve.degrees_of_freedom
    if left >= 1:
        error, _, bend_error = curve.errors
        if curve.curvature > float(stats.t.ppf((1 + level) / 2, left)) * bend_error:
            size = WithError(value=math.log(curve.parameters), error=error, degrees_of_freedom=left)
    return NoisyMinimum(
        variant,
        minimum,
        None if loss else "one seed near the minimum, so its noise is not known",
        loss=loss,
        loss_by_scatter=_loss_by_scatter(rows, deviations, minimum.loss),
        log_parameters=size,
        run_spread=math.sqrt(float((off**2).sum().sum()) / free) if free else None,
        run_spread_freedom=free,
        seed_deviations=dict(zip(seeds.tolist(), deviations.tolist(), strict=True)),
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
    paired = one.seed_deviations.keys() == other.seed_deviations.keys()
    estimate = difference(one.loss, other.loss)
    if paired:
        apart = [off - other.seed_deviations[seed] for seed, off in one.seed_deviations.items()]
        estimate = mean_estimate(apart).model_copy(update={"value": estimate.value})
    if one.loss_by_scatter is not None and other.loss_by_scatter is not None:
        by_scatter = difference(one.loss_by_scatter, other.loss_by_scatter)
        estimate = max(
            estimate, by_scatter, key=lambda found: found.interval().ends[1] - found.value
        )
    return estimate, paired


def _loss_by_scatter(rows: pd.DataFrame, deviations: pd.Series, loss: float) -> WithError | None:
    off = rows["seed"].map(deviations).fillna(0.0)
    curve = fit_parabola(rows["parameters"].to_numpy(), (rows["loss"] - off).to_numpy())
    free = curve.degrees_of_freedom - (len(deviations) - 1)
    if free < 1 or curve.curvature <= 0:
        return None
    error = curve.errors[1] * math.sqrt(curve.degrees_of_freedom / free)
    return WithError(value=loss, error=error, degrees_of_freedom=free)
