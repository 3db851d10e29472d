"""How far the seed moves a minimum: what a claim about two variants is judged against."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from isoflop.estimate import LEVEL
from isoflop.fit.curves.moving import curve_minimum
from isoflop.fit.intervals import Floats, WithError, difference, mean_estimate
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
    replicated_sizes: int = 0
    """Sizes that these are averages of."""


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
    shapes = rows.groupby(["parameters", "blocks", "width"]).ngroup().to_numpy()
    n, losses, seeds = (rows[one].to_numpy() for one in ("parameters", "loss", "seed"))
    return noisy_curve(variant, minimum, n, losses, (shapes, seeds), level=level)


def noisy_curve(
    variant: str,
    minimum: Minimum,
    parameters: Floats,
    losses: Floats,
    repeats: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
    *,
    level: float = LEVEL,
) -> NoisyMinimum:
    """Return what `noisy_minimum` does, of runs (P,) with a minimum: sizes, losses, repeats.

    `repeats` are each run's shape, numbered in the order of sizes, and its seed.
    """
    assert minimum.loss is not None
    curve = fit_parabola(parameters, losses)
    near = (curve.smallest <= parameters) & (parameters <= curve.largest)
    _, first, of_shape = np.unique(repeats[0][near], return_index=True, return_inverse=True)
    names, of_seed = np.unique(repeats[1][near], return_inverse=True)
    cells, many = of_shape * len(names) + of_seed, len(first) * len(names)
    with np.errstate(invalid="ignore"):
        means = np.bincount(cells, losses[near], many) / np.bincount(cells, minlength=many)
    off_centre = np.abs(np.log(parameters[near][first] / curve.parameters))
    by_seed = means.reshape(len(first), -1)[np.argsort(off_centre, kind="stable")]
    there = np.isfinite(by_seed)
    off = by_seed - np.nanmean(by_seed, axis=1, keepdims=True)
    free = int(there.sum()) - len(there)
    most = there[int(there.sum(axis=1).argmax())]
    replicated = by_seed[there[:, most].all(axis=1)][:NEAREST, most]
    deviations = (replicated - replicated.mean(axis=1, keepdims=True)).mean(axis=0)
    seed_deviations = dict(zip(names[most].tolist(), deviations.tolist(), strict=True))
    loss = None
    if len(deviations) >= 2:
        loss = mean_estimate(deviations).model_copy(update={"value": minimum.loss})
    size = None
    left = curve.degrees_of_freedom
    if left >= 1:
        error, _, bend_error = curve.errors
        if curve.curvature > float(special.stdtrit(left, (1 + level) / 2)) * bend_error:
            size = WithError(value=math.log(curve.parameters), error=error, degrees_of_freedom=left)
    moved = losses - [seed_deviations.get(seed, 0.0) for seed in repeats[1].tolist()]
    return NoisyMinimum(
        variant,
        minimum,
        None if loss else "one seed near the minimum, so its noise is not known",
        loss=loss,
        loss_by_scatter=_loss_by_scatter(parameters, moved, len(deviations), minimum.loss),
        log_parameters=size,
        run_spread=math.sqrt(float(np.nansum(off**2)) / free) if free else None,
        run_spread_freedom=free,
        seed_deviations=seed_deviations,
        replicated_sizes=len(replicated),
    )


def minimum_difference(
    one: NoisyMinimum, other: NoisyMinimum, looks_from: int | None = None
) -> tuple[WithError, bool] | None:
    """Return `one`'s minimum loss less `other`'s, and whether it was taken seed by seed.

    Where both have the same seeds, two or more, each seed gives a difference of its own: what
    moves both alike, such as the order of the data, cancels. Else the errors add up. How far runs
    lie from their parabolas tells another error: every interval and test takes the worse. None
    where either loss has no error by seeds.

    `looks_from` is the number of paired seeds from which on the difference was looked at after
    each of them: its interval then holds at every look, and there is none of unlike seeds.
    """
    if one.loss is None or other.loss is None:
        return None
    paired = one.seed_deviations.keys() == other.seed_deviations.keys()
    if looks_from is not None and not paired:
        return None
    estimate, beside = difference(one.loss, other.loss), None
    if paired:
        apart = [off - other.seed_deviations[seed] for seed, off in one.seed_deviations.items()]
        estimate = mean_estimate(apart).model_copy(update={"value": estimate.value})
    if one.loss_by_scatter is not None and other.loss_by_scatter is not None:
        beside = difference(one.loss_by_scatter, other.loss_by_scatter)
    return estimate.model_copy(update={"looks_from": looks_from, "beside": beside}), paired


def seeds_in_common(
    table: pd.DataFrame, variants: Iterable[str], budget_flops: float, declared: Collection[int]
) -> list[int]:
    """Return the seeds that each of the variants has near its minimum, ascending.

    A seed under way, or one of whose runs diverged, has fewer sizes than the declared ones.
    """
    common: set[int] | None = None
    for variant in variants:
        rows = curve_rows(table, variant, budget_flops)
        first = rows[rows["seed"].isin(declared)]
        replicated = int(first.groupby("parameters")["seed"].nunique().ge(2).sum())
        sizes = rows.groupby("seed")["parameters"].nunique()
        found = set(sizes[sizes >= min(NEAREST, replicated)].index.tolist())
        common = found if common is None else common & found
    return sorted(common or ())


def _loss_by_scatter(
    parameters: Floats, losses: Floats, seeds: int, loss: float
) -> WithError | None:
    """Return the error of a minimum by how runs, less what their seed is off by, scatter."""
    curve = fit_parabola(parameters, losses)
    free = curve.degrees_of_freedom - (seeds - 1)
    if free < 1 or curve.curvature <= 0:
        return None
    error = curve.errors[1] * math.sqrt(curve.degrees_of_freedom / free)
    return WithError(value=loss, error=error, degrees_of_freedom=free)
