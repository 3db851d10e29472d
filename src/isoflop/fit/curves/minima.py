"""The minimum of every variant at every budget, by every estimator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field
from scipy.interpolate import PchipInterpolator

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.moving import curve_minimum
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.settings import USUAL, Estimator
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.bootstrap import DrawsSource
from isoflop.fit.surfaces.sample import Samples, fit_surfaces
from isoflop.fit.surfaces.surface import FlopsLaw, surface_minimum
from isoflop.fit.tables.frame import budgets, variant_rows

ESTIMATORS: tuple[Estimator, ...] = (*CURVE_ESTIMATORS, *SURFACE_ESTIMATORS)
ESTIMATOR_NAMES: Mapping[Estimator, str] = {
    name: one.words for name, one in (CURVE_ESTIMATORS | SURFACE_ESTIMATORS).items()
}
"""What a person reads."""

IntervalSource = Literal["seeds", "scatter", "surface", "systematic"] | DrawsSource
"""What an interval rests on. Of one curve: noise between seeds, about the parabola, or about the
surface; or, where nothing tells the noise, what the estimator gets wrong without it, alone. Of the
surface: residuals under random signs, one for each run or cluster, or the limit of many runs."""


class MinimumInterval(Frozen):
    """Interval of a minimum's loss (`low`, `high`) and of its size: noise, and what is systematic.

    Of the parabola and Akima it is wider by their systematic error, on either side.
    """

    low: float
    high: float
    parameters_low: float
    parameters_high: float
    level: float
    source: IntervalSource
    refused: int
    """Copies of the curve without a minimum, of those drawn."""
    systematic: float = 0.0
    """By how much the loss is wider on either side: what the estimator gets wrong without noise."""
    systematic_ratio: float = 1.0
    """By what factor the size is."""


class CurveMinimum(Minimum):
    """The minimum of one variant's curve at one budget by one estimator, with its interval."""

    variant: str = Field(default="", exclude=True)
    """Told by the place among the variants where it is written down."""
    budget_flops: float
    tokens: float | None = None
    """At the minimum: a surface's by its closed form, else a monotone curve through those of the
    measured sizes, in log-log space."""
    forward_flops: float | None = None
    """Per token at the minimum, between measured sizes by a line in log-log space."""
    interval: MinimumInterval | None = None
    reason: str | None = None
    """Why a converged minimum has no interval."""

    def estimates(self) -> tuple[Estimate, Estimate]:
        """Return the size and the loss, of a minimum that has them, with their intervals."""
        assert self.parameters is not None
        assert self.loss is not None
        held = self.interval
        if held is None:
            return Estimate(value=self.parameters), Estimate(value=self.loss)
        return (
            Estimate(value=self.parameters, low=held.parameters_low, high=held.parameters_high),
            Estimate(value=self.loss, low=held.low, high=held.high),
        )


class MinimumDisagreement(Frozen):
    """How far the estimators of one minimum are apart: what no resampling shows."""

    budget_flops: float
    estimators: tuple[Estimator, ...]
    """Those that converged, two or more."""
    loss: float
    """Highest minimum loss less the lowest."""
    parameter_ratio: float
    """Largest optimal size over the smallest."""


def minima(
    table: pd.DataFrame,
    estimators: Iterable[Estimator] = ESTIMATORS,
    samples: Samples | None = None,
) -> tuple[CurveMinimum, ...]:
    """Return the minimum of each variant at each budget by each estimator, refusals included.

    How far estimators disagree is a systematic error bar. `samples` are surfaces of the table,
    where they have been fitted already.
    """
    wanted = tuple(estimators)
    found = []
    for variant in table["variant"].drop_duplicates().tolist():
        own = variant_rows(table, variant)
        if own.empty:
            continue
        missing = [one for one in wanted if one in SURFACE_ESTIMATORS]
        known = (samples or fit_surfaces(table, [variant], USUAL, missing))[variant]
        law = FlopsLaw.of_runs(own)
        for budget in budgets(own):
            rows = own[own["budget_flops"] == budget]
            n, y = rows["parameters"].to_numpy(), rows["loss"].to_numpy()
            for estimator in wanted:
                of_surface = known.get(estimator)
                if of_surface is None:
                    minimum = curve_minimum(rows, estimator)
                else:
                    minimum = surface_minimum(of_surface.fit, n, y, budget, law)
                at = {} if minimum.parameters is None else _between_sizes(rows, minimum.parameters)
                if minimum.parameters is not None and of_surface is not None:
                    at["tokens"] = float(law.tokens(budget, minimum.parameters))
                one = CurveMinimum(**dict(minimum), **at, variant=variant, budget_flops=budget)
                found.append(one)
    return tuple(found)


def minimum_disagreements(found: Iterable[CurveMinimum]) -> tuple[MinimumDisagreement, ...]:
    """Return how far the estimators of one variant are apart at each budget, ascending.

    Budgets at which fewer than two converged are left out.
    """
    apart = []
    for budget, group in groupby(found, key=lambda one: one.budget_flops):
        here = [
            (one.estimator, one.loss, one.parameters)
            for one in group
            if one.loss is not None and one.parameters is not None
        ]
        if len(here) > 1:
            names, losses, sizes = zip(*here, strict=True)
            apart.append(
                MinimumDisagreement(
                    budget_flops=budget,
                    estimators=names,
                    loss=max(losses) - min(losses),
                    parameter_ratio=max(sizes) / min(sizes),
                )
            )
    return tuple(apart)


def _between_sizes(rows: pd.DataFrame, parameters: float) -> dict[str, float]:
    """Return tokens and forward FLOPs at a size, between those measured in log-log space."""
    n, at = rows["parameters"].to_numpy(), np.log(parameters)
    sizes, logs = size_means(n, np.log(rows[["tokens", "forward_flops"]].to_numpy().T))
    tokens = PchipInterpolator(np.log(sizes), logs[0])(at)
    return {
        "tokens": float(np.exp(tokens)),
        "forward_flops": float(np.exp(np.interp(at, np.log(sizes), logs[1]))),
    }
