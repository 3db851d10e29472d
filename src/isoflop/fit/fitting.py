"""Everything that can be said of a table of runs: `isoflop fit`, and the same for data frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isoflop.estimate import LEVEL
from isoflop.fit.curves import ESTIMATORS
from isoflop.fit.envelope import fit_envelope
from isoflop.fit.fitted import FitResult, VariantFit
from isoflop.fit.goodness import noises_about
from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.minimum import Estimator
from isoflop.fit.minimum_draws import CurveDraws
from isoflop.fit.moved_runs import at_budgets, moving_surface
from isoflop.fit.resampling import RESAMPLES
from isoflop.fit.settings import FitSettings
from isoflop.fit.surface_comparison import SurfaceComparison, compare_surfaces
from isoflop.fit.variant_fitter import VariantFitter, fitted_surfaces
from isoflop.fit.verdict import BudgetVerdict, verdicts


def fit_runs(
    table: pd.DataFrame,
    *,
    baseline: str | None = None,
    margin: float | None = None,
    estimators: Sequence[Estimator] = ESTIMATORS,
    delta: float = HUBER_DELTA,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
    cluster: str | None = None,
    curves: pd.DataFrame | None = None,
    loss_unit: str | None = None,
    equal_exponents: bool = False,
) -> FitResult:
    """Fit every variant of a table by every estimator, with intervals, and compare them.

    Args:
        table: as `frame` or `run_table` makes it.
        baseline: the variant that others are held against; the first if left out. While it has
            no finished run there are no verdicts.
        margin: difference of loss that counts as none, declared beforehand.
        estimators: of the minima; surfaces are fitted where they are among them.
        delta: of the Huber loss on log loss.
        level: probability that intervals are to hold.
        resamples: bootstrap samples behind each interval.
        seed: of these samples.
        cluster: column of the table; runs of a variant that share its value share some noise, and
            are resampled together in the intervals of the surfaces.
        curves: training curves, as `training_curves` makes them, for the envelope.
        loss_unit: what losses are in, where that is known.
        equal_exponents: fit surfaces with alpha = beta (arXiv 2403.08540), for runs at fixed tokens
            per parameter.

    Raises:
        ValueError: the table has no finished run, or an option is out of its range.
    """
    settings = FitSettings(
        estimators=tuple(estimators),
        delta=delta,
        level=level,
        resamples=resamples,
        seed=seed,
        equal_exponents=equal_exponents,
        cluster=cluster,
    )
    if margin is not None and not margin > 0:
        raise ValueError(f"margin is {margin:g}; expected a positive difference of loss")
    if cluster is not None and cluster not in table:
        raise ValueError(f"cluster is {cluster!r}; expected a column of {list(table)}")
    finished = table[table["state"] == "finished"]
    for column in ("loss", "parameters", "tokens"):
        wrong = finished[~(np.isfinite(finished[column]) & (finished[column] > 0))]
        if len(wrong):
            raise ValueError(
                f"{column} of {wrong['run_id'].iloc[0]} is {wrong[column].iloc[0]:g}; expected a "
                "positive number of each finished run: `run_table` leaves other rows out"
            )
    names = finished["variant"].drop_duplicates().tolist()
    if not names:
        raise ValueError("the table has no finished run; train some first")
    reference = baseline or names[0]
    surfaces = {name: fitted_surfaces(table, name, settings) for name in names}
    moved = at_budgets(
        table, {name: moving_surface(found.values()) for name, found in surfaces.items()}
    )
    draws = CurveDraws(
        moved,
        resamples=resamples,
        seed=seed,
        about_surfaces=noises_about(table, {n: s.values() for n, s in surfaces.items()}),
    )
    fitters = {
        name: VariantFitter(table, moved, name, settings, surfaces[name], draws) for name in names
    }
    fits = {name: fitter.fit() for name, fitter in fitters.items()}
    if curves is not None:
        for name, fit in fits.items():
            envelope = fit_envelope(
                table, curves, name, level=level, resamples=resamples, seed=seed
            )
            fits[name] = fit.model_copy(update={"envelope": envelope})
    compared: tuple[BudgetVerdict, ...] = ()
    on_surfaces: tuple[SurfaceComparison, ...] = ()
    if reference in fits and len(names) > 1:
        floor = _irreducible(fits[reference])
        compared = verdicts(
            moved,
            reference,
            margin=margin,
            irreducible=floor,
            level=level,
            resamples=resamples,
            seed=seed,
            draws=draws,
            found=[one.of_curve(name) for name, fit in fits.items() for one in fit.minima],
        )
        samples = {
            (name, one): sample
            for name, fitter in fitters.items()
            for one, sample in fitter.samples(fits[name]).items()
        }
        on_surfaces = compare_surfaces(table, reference, settings=settings, samples=samples)
    return FitResult(
        variants=fits,
        verdicts=compared,
        surface_comparisons=on_surfaces,
        baseline=reference if compared else None,
        level=level,
        resamples=resamples,
        seed=seed,
        loss_unit=loss_unit,
    )


def _irreducible(fit: VariantFit) -> float | None:
    """Return E of the baseline where the runs tell it, by a surface that describes them."""
    for surface in (fit.surface, fit.variable_projection):
        if surface is None or surface.status != "converged" or surface.warning is not None:
            continue
        if surface.E is not None:
            return surface.E.value
    return None
