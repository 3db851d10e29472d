"""The minimum of every variant at every budget, by every estimator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from isoflop.config import Frozen
from isoflop.fit.curves.moving import curve_minimum
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.sample import Samples, fit_surfaces
from isoflop.fit.surfaces.surface import FlopsLaw, surface_minimum
from isoflop.fit.tables.frame import budgets, variant_rows

ESTIMATORS: tuple[Estimator, ...] = (*CURVE_ESTIMATORS, *SURFACE_ESTIMATORS)
ESTIMATOR_NAMES: Mapping[Estimator, str] = {
    **{name: one.words for name, one in CURVE_ESTIMATORS.items()},
    **{name: one.words for name, one in SURFACE_ESTIMATORS.items()},
}
"""What a person reads."""


class CurveMinimum(Frozen):
    """The minimum of one variant's curve at one budget."""

    variant: str
    budget_flops: float
    minimum: Minimum
    forward_flops: float | None = None
    """Per token at the minimum, between measured sizes by a line in log-log space."""
    tokens: float | None = None
    """At the minimum: a surface's by its closed form, else a monotone curve through those of the
    measured sizes, in log-log space."""


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

    Args:
        table: as `frame` makes it.
        estimators: which ones; how far they disagree is a systematic error bar.
        samples: surfaces by variant and estimator, where they have been fitted already.
    """
    wanted = tuple(estimators)
    found = []
    for variant in table["variant"].drop_duplicates().tolist():
        own = variant_rows(table, variant)
        if own.empty:
            continue
        missing = [one for one in wanted if one in SURFACE_ESTIMATORS]
        known = samples or fit_surfaces(table, [variant], FitSettings(), missing)
        law = FlopsLaw.of_runs(own)
        for budget in budgets(own):
            rows = own[own["budget_flops"] == budget]
            n, y = rows["parameters"].to_numpy(), rows["loss"].to_numpy()
            for estimator in wanted:
                if estimator in CURVE_ESTIMATORS:
                    minimum = curve_minimum(rows, estimator)
                    tokens = _between_sizes(rows, "tokens", minimum)
                else:
                    minimum = surface_minimum(known[variant, estimator].fit, n, y, budget, law)
                    tokens = None
                    if minimum.parameters is not None:
                        tokens = float(law.tokens(budget, minimum.parameters))
                found.append(
                    CurveMinimum(
                        variant=variant,
                        budget_flops=budget,
                        minimum=minimum,
                        forward_flops=_between_sizes(rows, "forward_flops", minimum),
                        tokens=tokens,
                    )
                )
    return tuple(found)


def minimum_disagreements(found: Iterable[CurveMinimum]) -> tuple[MinimumDisagreement, ...]:
    """Return how far the estimators of one variant are apart at each budget, ascending.

    Budgets at which fewer than two converged are left out.
    """
    by_budget: dict[float, list[Minimum]] = {}
    for one in found:
        if one.minimum.loss is not None:
            by_budget.setdefault(one.budget_flops, []).append(one.minimum)
    return tuple(
        _disagreement(budget, here) for budget, here in sorted(by_budget.items()) if len(here) > 1
    )


def _disagreement(budget: float, here: Sequence[Minimum]) -> MinimumDisagreement:
    losses = [one.loss for one in here if one.loss is not None]
    sizes = [one.parameters for one in here if one.parameters is not None]
    return MinimumDisagreement(
        budget_flops=budget,
        estimators=tuple(one.estimator for one in here),
        loss=max(losses) - min(losses),
        parameter_ratio=max(sizes) / min(sizes),
    )


def _between_sizes(rows: pd.DataFrame, column: str, minimum: Minimum) -> float | None:
    """Return a column at the minimum, between those of the measured sizes in log-log space."""
    if minimum.parameters is None:
        return None
    sizes, logs = size_means(rows["parameters"].to_numpy(), np.log(rows[column].to_numpy()))
    at, x = np.log(minimum.parameters), np.log(sizes)
    curve = PchipInterpolator(x, logs)(at) if column == "tokens" else np.interp(at, x, logs)
    return float(np.exp(curve))
