"""The minimum of every variant at every budget, by every estimator, and laws through them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator

from isoflop.config import Frozen
from isoflop.fit.frame import budgets, run_flops
from isoflop.fit.huber import HUBER_DELTA, fit_huber
from isoflop.fit.minimum import Estimator, Minimum
from isoflop.fit.moved_runs import curve_minimum
from isoflop.fit.optimum import FlopsLaw
from isoflop.fit.power_law import PowerLaw, fit_power_law
from isoflop.fit.projection import fit_variable_projection
from isoflop.fit.sizes import size_means
from isoflop.fit.surface import SurfaceEstimator, SurfaceFit, surface_minimum

ESTIMATORS: tuple[Estimator, ...] = ("parabola", "akima", "surface", "variable_projection")


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


def fit_surface(
    table: pd.DataFrame,
    variant: str,
    estimator: SurfaceEstimator = "surface",
    *,
    delta: float = HUBER_DELTA,
    equal_exponents: bool = False,
) -> SurfaceFit:
    """Fit one surface to a variant's finished runs of all budgets.

    Args:
        table: as `frame` makes it.
        variant: whose runs.
        estimator: Huber on log loss, or least squares on the loss.
        delta: of the Huber loss.
        equal_exponents: hold alpha and beta equal.

    Raises:
        ValueError: the variant has no finished run.
    """
    rows = variant_rows(table, variant)
    if rows.empty:
        raise ValueError(f"there is no finished run of {variant!r} to fit")
    columns = (rows["parameters"].array, rows["tokens"].array, rows["loss"].array)
    n, d, y = (np.asarray(column, dtype=np.float64) for column in columns)
    return (
        fit_huber(n, d, y, delta=delta, equal_exponents=equal_exponents)
        if estimator == "surface"
        else fit_variable_projection(n, d, y, equal_exponents=equal_exponents)
    )


def variant_rows(table: pd.DataFrame, variant: str) -> pd.DataFrame:
    """Return the finished runs of a variant's ladder at every budget, budget by budget."""
    own = table[
        (table["variant"] == variant)
        & (table["state"] == "finished")
        & table["on_ladder"]
        & table["budget_flops"].notna()
    ]
    return own.sort_values("budget_flops", kind="stable")


def flops_law(table: pd.DataFrame, variant: str) -> FlopsLaw:
    """Return training FLOPs per token by size, of all of a variant's runs that fits use."""
    rows = variant_rows(table, variant)
    return FlopsLaw.of_runs(rows["parameters"], rows["tokens"], run_flops(rows))


def minima(
    table: pd.DataFrame,
    estimators: Iterable[Estimator] = ESTIMATORS,
    *,
    surfaces: Mapping[tuple[str, Estimator], SurfaceFit] | None = None,
) -> tuple[CurveMinimum, ...]:
    """Return the minimum of each variant at each budget by each estimator, refusals included.

    Args:
        table: as `frame` makes it.
        estimators: which ones; how far they disagree is a systematic error bar.
        surfaces: by variant and estimator, where they have been fitted already.
    """
    wanted = tuple(estimators)
    known = dict(surfaces or {})
    found = []
    for variant in table["variant"].drop_duplicates().tolist():
        own = variant_rows(table, variant)
        if own.empty:
            continue
        law = flops_law(own, variant)
        for budget in budgets(own):
            rows = own[own["budget_flops"] == budget]
            for estimator in wanted:
                match estimator:
                    case "parabola" | "akima":
                        minimum = curve_minimum(rows, estimator)
                        tokens = _tokens(rows, minimum)
                    case "surface" | "variable_projection":
                        if (variant, estimator) not in known:
                            known[variant, estimator] = fit_surface(table, variant, estimator)
                        minimum = surface_minimum(
                            known[variant, estimator],
                            rows["parameters"].to_numpy(),
                            rows["loss"].to_numpy(),
                            budget,
                            law,
                        )
                        tokens = None
                        if minimum.parameters is not None:
                            tokens = float(law.tokens(budget, minimum.parameters))
                found.append(
                    CurveMinimum(
                        variant=variant,
                        budget_flops=budget,
                        minimum=minimum,
                        forward_flops=_forward_flops(rows, minimum),
                        tokens=tokens,
                    )
                )
    return tuple(found)


def optimum_law(curve_minima: Sequence[CurveMinimum]) -> PowerLaw:
    """Fit the optimal parameters N = k * C^a over budgets; refused minima are left out.

    Raises:
        ValueError: minima of several variants or estimators are mixed.
    """
    kinds = {(one.variant, one.minimum.estimator) for one in curve_minima}
    if len(kinds) > 1:
        raise ValueError(f"minima are of {sorted(kinds)}; expected one variant and estimator")
    pairs = [
        (one.budget_flops, one.minimum.parameters)
        for one in curve_minima
        if one.minimum.parameters is not None
    ]
    return fit_power_law([c for c, _ in pairs], [n for _, n in pairs])


def _forward_flops(rows: pd.DataFrame, minimum: Minimum) -> float | None:
    if minimum.parameters is None:
        return None
    sizes, logs = size_means(
        rows["parameters"].to_numpy(), np.log(rows["forward_flops"].to_numpy())
    )
    return float(np.exp(np.interp(np.log(minimum.parameters), np.log(sizes), logs)))


def _tokens(rows: pd.DataFrame, minimum: Minimum) -> float | None:
    if minimum.parameters is None:
        return None
    sizes, logs = size_means(rows["parameters"].to_numpy(), np.log(rows["tokens"].to_numpy()))
    return float(np.exp(PchipInterpolator(np.log(sizes), logs)(np.log(minimum.parameters))))
