"""Studies drawn from a known surface: how often intervals hold the truth, and what is biased."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from known_surfaces import (
    ASYMMETRIC,
    FITS,
    SIX_ND,
    SIZES,
    SYMMETRIC,
    Columns,
    along_budgets,
    noisy,
    optimum,
    table_of,
)

from isoflop.estimate import Estimate
from isoflop.fit import FitSettings, fit_runs
from isoflop.fit.intervals import draws_interval
from isoflop.fit.surfaces.bootstrap import surface_draws, surface_intervals
from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.surface import Surface, SurfaceFit, surface_optima
from isoflop.fit.tables.frame import TOLERANCE


@dataclass(frozen=True)
class Design:
    """What a study trains: seven sizes at each budget, with noise on log loss."""

    surface: Surface
    budgets: int
    span: float
    """Largest budget over the smallest."""
    seeds: int
    shift: float
    """Middle of the sizes over the optimum."""
    noise: float
    """Standard deviation on log loss."""
    uneven: float = 1
    """Noise at the smallest budget over that at the largest; `noise` is in the middle."""

    @property
    def budgets_flops(self) -> np.ndarray:
        return 1e18 * np.geomspace(1, self.span, self.budgets)

    def noise_free(self) -> Columns:
        """Return N, D and loss of every run."""
        once = along_budgets(self.surface, self.budgets_flops, self.shift * SIZES)
        n, d, losses = (np.tile(column, self.seeds) for column in once)
        return n, d, losses

    def studies(self, count: int) -> Iterator[Columns]:
        """Yield N, D and noisy losses of each study."""
        n, d, _ = self.noise_free()
        place = np.log(6 * n * d / self.budgets_flops[0]) / np.log(self.span)
        spread = self.noise * self.uneven ** (0.5 - place)
        for study in range(count):
            yield noisy(self.surface, n, d, spread, study)

    def truth(self) -> Mapping[str, float]:
        """Return the coefficients and exponents of the surface."""
        s = self.surface
        return {**s.model_dump(), "a": s.beta / (s.alpha + s.beta)}


DESIGNS = {
    "symmetric, centred, 3 x 7 x 1": Design(SYMMETRIC, 3, 100, 1, 1, 0.005),
    "symmetric, off by 3, 4 x 7 x 2": Design(SYMMETRIC, 4, 100, 2, 3, 0.005),
    "asymmetric, centred, 5 x 7 x 1": Design(ASYMMETRIC, 5, 1000, 1, 1, 0.01),
    "asymmetric, off by 3, 3 x 7 x 3": Design(ASYMMETRIC, 3, 100, 3, 3, 0.005),
    "asymmetric, centred, 4 x 7 x 1, noise 4 to 1": Design(ASYMMETRIC, 4, 100, 1, 1, 0.005, 4),
}


def surface_coverage(design: Design, studies: int, *, resamples: int = 400) -> pd.DataFrame:
    """Return the share of studies whose intervals hold each quantity, a row per estimator.

    `loss` and `size` are those of the minima along the budgets; `studies` is the share of fits
    that converged, which alone have intervals.
    """

    def found(study: int, fitted: SurfaceFit, columns: Columns) -> dict[str, float]:
        data = SurfaceData.of(*columns)
        draws = surface_draws(fitted, data, FitSettings(resamples=resamples, seed=study))
        held = _held(surface_intervals(fitted, draws), design.truth())
        return {**held, **_minima_held(design, draws)}

    return _shares(design, studies, found)


def profile_coverage(design: Design, studies: int) -> pd.DataFrame:
    """Return the same for profile intervals of the surface's coefficients."""

    def found(study: int, fitted: SurfaceFit, columns: Columns) -> dict[str, float]:
        return _held(profile_intervals(fitted, SurfaceData.of(*columns)), design.truth())

    return _shares(design, studies, found)


def _shares(
    design: Design, studies: int, found: Callable[[int, SurfaceFit, Columns], dict[str, float]]
) -> pd.DataFrame:
    """Return the mean of what is found of each study that converged, a row per estimator."""
    fits = (
        (study, name, columns, fit(SurfaceData.of(*columns)))
        for study, columns in enumerate(design.studies(studies))
        for name, fit in FITS.items()
    )
    held = [
        {"estimator": name, **found(study, fitted, columns)}
        for study, name, columns, fitted in fits
        if fitted.status == "converged"
    ]
    grouped = pd.DataFrame(held).groupby("estimator")
    return grouped.mean().assign(studies=grouped.size() / studies)


def _held(intervals: Mapping[str, Estimate], truth: Mapping[str, float]) -> dict[str, float]:
    return {
        name: one.low <= truth[name] <= one.high for name, one in intervals.items() if name in truth
    }


def _minima_held(design: Design, draws: np.ndarray) -> dict[str, float]:
    """Return the share of budgets whose surface minima are held."""
    held = []
    for flops in design.budgets_flops:
        size = optimum(design.surface, flops)
        truth = np.log(size), float(design.surface.loss(size, flops / 6 / size))
        drawn = surface_optima(draws, flops, SIX_ND)
        intervals = [draws_interval(float(np.nanmedian(one)), one) for one in drawn]
        held.append([i.low <= t <= i.high for i, t in zip(intervals, truth, strict=True)])
    size_held, loss_held = np.mean(held, axis=0)
    return {"loss": loss_held, "size": size_held}


def minimum_coverage(design: Design, studies: int, *, resamples: int = 400) -> pd.DataFrame:
    """Return the share of minima whose intervals hold the surface's, a row per estimator.

    A curve that is refused has no interval and counts in `curves` only: the share that has one.
    """
    held = []
    few = FitSettings(estimators=("parabola", "akima"), resamples=resamples)
    for study, columns in enumerate(design.studies(studies)):
        n, d, _ = columns
        others = {"budget_flops": 6 * n * d, "seed": np.arange(len(n))}
        table = table_of(columns, tolerance=TOLERANCE, **others)
        fit = fit_runs(table, settings=replace(few, seed=study))
        for one in fit.variants["all runs"].minima:
            if one.interval is None:
                continue
            size = optimum(design.surface, one.budget_flops)
            loss = float(design.surface.loss(size, one.budget_flops / 6 / size))
            held.append(
                {
                    "estimator": one.estimator,
                    "loss": one.interval.low <= loss <= one.interval.high,
                    "size": one.interval.parameters_low <= size <= one.interval.parameters_high,
                    "curves": 1 / studies / design.budgets,
                }
            )
    found = pd.DataFrame(held).groupby("estimator")
    return found.mean().assign(curves=found["curves"].sum())
