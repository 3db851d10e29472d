"""Each variant's surface with noisy copies of it: what fits, predictions and comparisons share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from isoflop.fit.intervals import Floats
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.bootstrap import DrawsSource, draws_source, surface_draws
from isoflop.fit.surfaces.data import SurfaceData
from isoflop.fit.surfaces.goodness import Goodness, goodness, misfit
from isoflop.fit.surfaces.surface import FlopsLaw, Surface, SurfaceFit
from isoflop.fit.tables.frame import run_flops, variant_rows

FAR = 30.0
"""How many times beyond the runs an extrapolation is called one in words."""


@dataclass(eq=False)
class SurfaceSample:
    """A variant's runs, the surface through them, and copies that noise might have made."""

    variant: str
    fit: SurfaceFit
    rows: pd.DataFrame
    """Finished runs that the surface goes through."""
    data: SurfaceData
    """The same as arrays."""
    law: FlopsLaw
    settings: FitSettings
    warning: str | None = None
    """Why the surface does not describe its runs."""

    @property
    def surface(self) -> Surface | None:
        """The surface, where its coefficients are to be used."""
        return self.fit.surface if self.fit.status == "converged" else None

    @property
    def source(self) -> DrawsSource:
        """What intervals by `draws` rest on."""
        return draws_source(len(self.data), clustered=self.settings.cluster is not None)

    @cached_property
    def draws(self) -> Floats:
        """Copies of the fit, which has to have a surface; (R, 7) as `surface_draws` has them."""
        column = self.settings.cluster
        clusters = None if column is None else self.rows[column].astype(str).to_numpy()
        return surface_draws(
            self.fit, self.data, self.settings, clusters=clusters, slope=self.law.slope
        )

    @cached_property
    def goodness(self) -> Goodness:
        """How far the surface, which has to be there, lies from the runs."""
        assert self.fit.surface is not None
        return goodness(self.rows, self.fit.surface)

    def extrapolation(self, **at: float) -> float:
        """Return how many times beyond the runs a place is, 1 among them.

        Of `flops`, `parameters` and `tokens` the one farthest out counts.
        """
        own = self.rows.assign(flops=run_flops(self.rows))
        above = [value / own[name].max() for name, value in at.items()]
        below = [own[name].min() / value for name, value in at.items()]
        return float(max(1.0, *above, *below))


Samples = Mapping[str, Mapping[Estimator, SurfaceSample]]
"""By variant, then estimator."""


def fit_surfaces(
    table: pd.DataFrame,
    variants: Iterable[str],
    settings: FitSettings,
    estimators: Iterable[Estimator] = SURFACE_ESTIMATORS,
) -> Samples:
    """Return a surface of each variant by each estimator, through its runs of all budgets.

    Each is told whether it describes them; what noise between runs tells of that comes later.

    Raises:
        ValueError: a variant has no finished run, or there is no such column of clusters.
    """
    wanted = tuple(estimators)
    found: dict[str, dict[Estimator, SurfaceSample]] = {}
    for name in variants:
        rows = variant_rows(table, name)
        if rows.empty:
            raise ValueError(f"there is no finished run of {name!r} to fit")
        data = SurfaceData.of(rows["parameters"], rows["tokens"], rows["loss"])
        law, found[name] = FlopsLaw.of_runs(rows), {}
        for one in wanted:
            fit = SURFACE_ESTIMATORS[one].fit(data, settings)
            sample = SurfaceSample(name, fit, rows, data, law, settings)
            if fit.surface is not None:
                sample.warning = misfit(sample.goodness, fit.points)
            found[name][one] = sample
    return found
