"""Everything that can be said of a table of runs: `isoflop fit`, and the same for data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd

from isoflop.fit.compare.surfaces import compare_surfaces
from isoflop.fit.compare.verdict import verdicts
from isoflop.fit.curves.minima import ESTIMATORS
from isoflop.fit.curves.moving import moved_draws
from isoflop.fit.laws.envelope import fit_envelope
from isoflop.fit.results import FitResult
from isoflop.fit.settings import USUAL, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.sample import fit_surfaces
from isoflop.fit.tables.frame import finished_variants
from isoflop.fit.variants import fit_variant


def fit_runs(
    table: pd.DataFrame,
    settings: FitSettings = USUAL,
    *,
    baseline: str | None = None,
    curves: pd.DataFrame | None = None,
    loss_unit: str | None = None,
) -> FitResult:
    """Fit every variant of a table by every estimator, with intervals, and compare them.

    Args:
        table: as `frame` or `run_table` makes it.
        settings: what is asked for.
        baseline: the variant that others are held against; the first if left out. While it has
            no finished run there are no verdicts.
        curves: training curves, as `training_curves` makes them, for the envelope.
        loss_unit: what losses are in, where that is known.

    Raises:
        ValueError: the table has no finished run, or one without a size, tokens or a loss.
    """
    names = _checked(table, settings)
    estimators = ESTIMATORS if settings.estimators is None else settings.estimators
    # One surface is needed whatever was asked for: runs are moved to their budgets along it, and
    # it tells what the estimators of one curve get wrong.
    wanted = [one for one in SURFACE_ESTIMATORS if one in estimators] or ["variable_projection"]
    samples = fit_surfaces(table, names, settings, wanted)
    draws = moved_draws(table, samples, settings)
    fits = {
        name: fit_variant(
            estimators,
            samples[name],
            draws,
            None if curves is None else fit_envelope(table, curves, name, settings),
        )
        for name in names
    }
    result = FitResult(
        variants=fits,
        level=settings.level,
        resamples=settings.resamples,
        seed=settings.seed,
        loss_unit=loss_unit,
    )
    reference = baseline or names[0]
    if reference not in fits or len(names) < 2:
        return result
    # E of the baseline where the runs tell it, by a surface that describes them.
    told = [
        one.E.value
        for one in fits[reference].surfaces
        if one.status == "converged" and one.warning is None and one.E is not None
    ]
    irreducible = told[0] if told else 0.0
    compared = verdicts(draws, reference, result.minima, irreducible=irreducible)
    of_these = {
        name: {one: sample for one, sample in own.items() if one in estimators}
        for name, own in samples.items()
    }
    on_surfaces = compare_surfaces(table, reference, settings=settings, samples=of_these)
    return result.model_copy(
        update={
            "verdicts": compared,
            "surface_comparisons": on_surfaces,
            "baseline": reference if compared else None,
        }
    )


def _checked(table: pd.DataFrame, settings: FitSettings) -> list[str]:
    """Return the variants of a table that can be fitted, or raise as `fit_runs`."""
    if settings.cluster is not None and settings.cluster not in table:
        raise ValueError(f"cluster is {settings.cluster!r}; expected a column of {list(table)}")
    finished, names = finished_variants(table, "; train some first")
    for column in ("loss", "parameters", "tokens"):
        wrong = finished[~(np.isfinite(finished[column]) & (finished[column] > 0))]
        if len(wrong):
            raise ValueError(
                f"{column} of {wrong['run_id'].iloc[0]} is {wrong[column].iloc[0]:g}; expected a "
                "positive number of each finished run: `run_table` leaves other rows out"
            )
    return names
