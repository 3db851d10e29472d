"""The tables behind the figures of the fits: residuals, and minima by every estimator."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isoflop.fit.results import FittedSurface
from isoflop.fit.surfaces.surface import Surface
from isoflop.notation import exponent
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.rows import ESTIMATOR_WORDS

RUNS = "runs"
"""File name, without its ending, of the table of every run."""

MINIMA_COLUMNS = {
    "variant": "str",
    "budget_flops": "float64",
    "curve": "str",
    "estimator": "str",
    "status": "str",
    "parameters": "float64",
    "parameters_low": "float64",
    "parameters_high": "float64",
    "loss": "float64",
    "loss_low": "float64",
    "loss_high": "float64",
}


def estimator_minima(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget, variant and estimator: the minimum with the ends of its intervals.

    Columns: `MINIMA_COLUMNS`, where `curve` names variant and budget, and of each curve the median
    of its estimators stands beside: `parameters_ratio` and `loss_difference` with their ends `_low`
    and `_high` are relative to it. Refused minima have a status and no numbers.
    """
    several = len(analysis.budgets) > 1
    rows = []
    for result in analysis.budgets:
        for variant in analysis.study.variants:
            for estimator in analysis.estimators:
                one = result.minima.get((variant.name, estimator))
                if one is None:
                    continue
                interval = result.intervals.get((variant.name, estimator))
                at = f"\n{exponent(result.budget_flops)} FLOPs" if several else ""
                rows.append(
                    (
                        variant.name,
                        result.budget_flops,
                        f"{variant.name}{at}",
                        ESTIMATOR_WORDS[estimator],
                        one.minimum.status,
                        one.minimum.parameters,
                        interval.parameters_low if interval else None,
                        interval.parameters_high if interval else None,
                        one.minimum.loss,
                        interval.low if interval else None,
                        interval.high if interval else None,
                    )
                )
    table = pd.DataFrame(rows, columns=list(MINIMA_COLUMNS)).astype(MINIMA_COLUMNS)
    curves = table.groupby(["variant", "budget_flops"])
    sizes = curves["parameters"].transform("median")
    losses = curves["loss"].transform("median")
    for end in ("", "_low", "_high"):
        table[f"parameters_ratio{end}"] = table[f"parameters{end}"] / sizes
        table[f"loss_difference{end}"] = table[f"loss{end}"] - losses
    return table


def residuals(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return log measured less log fitted loss of each fitted run of a budget, surface by Huber.

    Columns: `row` (run, or mean over the seeds of a size), `variant`, `parameters`, `tokens`,
    `seed`, `loss`, `fitted`, `residual`. Variants without a surface are absent.
    """
    table = analysis.table
    here = table[
        (table["state"] == "finished")
        & table["on_ladder"]
        & (table["budget_flops"] == result.budget_flops)
    ]
    parts = []
    for variant in analysis.study.variants:
        fit = analysis.fits.variants.get(variant.name) if analysis.fits else None
        surface = surface_of(fit.surface) if fit and fit.surface else None
        own = here[here["variant"] == variant.name]
        if surface is None or own.empty:
            continue
        fitted = surface.loss(own["parameters"].to_numpy(), own["tokens"].to_numpy())
        runs = own[["variant", "parameters", "tokens", "seed", "loss"]].assign(
            row="run", fitted=fitted, residual=np.log(own["loss"].to_numpy() / fitted)
        )
        means = (
            runs.groupby(["variant", "parameters", "tokens"], as_index=False)
            .agg(loss=("loss", "mean"), fitted=("fitted", "first"), residual=("residual", "mean"))
            .assign(row="mean", seed=None)
        )
        parts += [runs, means]
    columns = ["row", "variant", "parameters", "tokens", "seed", "loss", "fitted", "residual"]
    if not parts:
        return pd.DataFrame(columns=columns)
    joined = pd.concat([part.astype({"seed": "Int64"}) for part in parts], ignore_index=True)
    return joined[columns]


def surface_of(fit: FittedSurface) -> Surface | None:
    """Return the surface of a fit; None where it has no coefficients."""
    known = {
        name: getattr(fit, name).value
        for name in Surface.model_fields
        if getattr(fit, name) is not None
    }
    return Surface(**known) if len(known) == len(Surface.model_fields) else None
