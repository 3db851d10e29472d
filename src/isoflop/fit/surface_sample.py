"""One variant's surface with noisy copies of it: what predictions and comparisons are made from.

Axes: R copies, P runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.fit.curves import fit_surface, flops_law, variant_rows
from isoflop.fit.frame import run_flops
from isoflop.fit.goodness import goodness, misfit
from isoflop.fit.minimum import Floats
from isoflop.fit.optimum import FlopsLaw
from isoflop.fit.settings import FitSettings
from isoflop.fit.surface import Surface, SurfaceEstimator, SurfaceFit
from isoflop.fit.surface_bootstrap import surface_draws

FAR = 30.0
"""How many times beyond the runs an extrapolation is called one in words."""


@dataclass(frozen=True)
class SurfaceSample:
    """A variant's runs, the surface through them, and copies that noise might have made."""

    variant: str
    fit: SurfaceFit
    rows: pd.DataFrame
    """Finished runs that the surface goes through."""
    law: FlopsLaw
    draws: Floats | None = None
    """(R, 7); None without a surface."""
    warning: str | None = None
    """Why the surface does not describe its runs."""

    @property
    def surface(self) -> Surface | None:
        """The surface, where its coefficients are to be used."""
        return self.fit.surface if self.fit.status == "converged" else None

    @property
    def flops(self) -> tuple[float, float]:
        """Least and most training FLOPs of a run."""
        own = run_flops(self.rows)
        return float(own.min()), float(own.max())

    def extrapolation(self, **at: float) -> float:
        """Return how many times beyond the runs a place is, 1 among them.

        Args:
            at: `flops`, `parameters` or `tokens`; the one farthest out counts.
        """
        factors = [1.0]
        for name, value in at.items():
            own = run_flops(self.rows) if name == "flops" else self.rows[name].to_numpy()
            factors += [value / float(own.max()), float(own.min()) / value]
        return max(factors)


def sample_surface(
    table: pd.DataFrame, variant: str, estimator: SurfaceEstimator, settings: FitSettings
) -> SurfaceSample:
    """Return a variant's surface with copies of it.

    Args:
        table: as `frame` or `run_table` makes it.
        variant: whose runs.
        estimator: of the surface.
        settings: how it is fitted and drawn.

    Raises:
        ValueError: the variant has no finished run, or there is no such column of clusters.
    """
    fit = fit_surface(
        table,
        variant,
        estimator,
        delta=settings.delta,
        equal_exponents=settings.equal_exponents,
    )
    rows, law = variant_rows(table, variant), flops_law(table, variant)
    if fit.surface is None:
        return SurfaceSample(variant, fit, rows, law)
    draws = surface_draws(
        fit,
        rows["parameters"],
        rows["tokens"],
        rows["loss"],
        clusters=None if settings.cluster is None else rows[settings.cluster].astype(str),
        delta=settings.delta,
        resamples=settings.resamples,
        seed=settings.seed,
        slope=law.slope,
    )
    warning = misfit(goodness(rows, fit.surface), fit.points, (), ())
    return SurfaceSample(variant, fit, rows, law, draws, warning)


def losses_at(surfaces: Floats, parameters: Floats | float, tokens: Floats | float) -> Floats:
    """Return the loss (R,) of surfaces (R, 5 or more) at sizes and tokens, (R,) or one for all."""
    e, a, b, alpha, beta = surfaces.T[:5]
    with np.errstate(over="ignore", invalid="ignore"):
        size, seen = np.exp(-alpha * np.log(parameters)), np.exp(-beta * np.log(tokens))
        return np.asarray(e + a * size + b * seen)


Samples = Mapping[tuple[str, SurfaceEstimator], SurfaceSample]
"""By variant and estimator."""
