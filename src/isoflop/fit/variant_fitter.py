"""The fits of one variant: surfaces, minima and laws, with the intervals of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from isoflop.estimate import Estimate
from isoflop.fit.curves import CurveMinimum, fit_surface, flops_law, minima, variant_rows
from isoflop.fit.disagreement import (
    SurfaceDisagreement,
    minimum_disagreements,
    surface_disagreement,
)
from isoflop.fit.fitted import (
    FittedLaw,
    FittedMinimum,
    FittedSurface,
    IntervalSource,
    MinimumInterval,
    VariantFit,
)
from isoflop.fit.frame import budgets
from isoflop.fit.goodness import goodness, misfit
from isoflop.fit.huber import fit_huber
from isoflop.fit.interval import FEWEST_DRAWS, basic_interval, percentile_interval
from isoflop.fit.laws import minimum_law, surface_law
from isoflop.fit.minimum import ESTIMATOR_NAMES, Estimator, Floats
from isoflop.fit.minimum_draws import CurveDraws, CurveEstimator
from isoflop.fit.moved_runs import EXACT, scatter
from isoflop.fit.optimum import surface_optima
from isoflop.fit.profile import profile_intervals
from isoflop.fit.settings import FitSettings
from isoflop.fit.surface import Surface, SurfaceEstimator, SurfaceFit
from isoflop.fit.surface_bootstrap import (
    QUANTITIES,
    draws_source,
    surface_draws,
    surface_intervals,
)
from isoflop.fit.surface_sample import SurfaceSample
from isoflop.fit.systematic import Systematic, known_surfaces, systematic
from isoflop.fit.tables.grouping import TOLD

DELTAS = (1e-4, 1e-2)
"""Other Huber deltas that the surface is fitted with, to see how much hangs on the choice."""
SURFACES: tuple[SurfaceEstimator, ...] = ("surface", "variable_projection")
LARGEST_MISFIT = 0.05
"""Log of FLOPs per token off their law of size, above which it is said: at a minimum loss falls
by 0.2 to 0.5 nats for each unit of log tokens, so that it is a hundredth or two."""


def fitted_surfaces(
    table: pd.DataFrame, variant: str, settings: FitSettings
) -> Mapping[SurfaceEstimator, SurfaceFit]:
    """Return the surfaces of a variant that were asked for, or else one by least squares.

    One is needed whatever was asked for: runs are moved to their budgets along it, and it tells
    what the estimators of one curve get wrong.
    """
    wanted = [one for one in SURFACES if one in settings.estimators] or ["variable_projection"]
    return {
        one: fit_surface(
            table,
            variant,
            one,
            delta=settings.delta,
            equal_exponents=settings.equal_exponents,
        )
        for one in SURFACES
        if one in wanted
    }


class VariantFitter:
    """Makes the fits of one variant, which share its surfaces, noise and draws.

    Args:
        table: runs as they are: surfaces go through these.
        moved: the same, each at its budget: curves go through these.
        variant: whose runs.
        settings: what is asked for.
        surfaces: of the variant.
        draws: noisy minima of the moved runs.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        moved: pd.DataFrame,
        variant: str,
        settings: FitSettings,
        surfaces: Mapping[SurfaceEstimator, SurfaceFit],
        draws: CurveDraws,
    ) -> None:
        self.variant, self.settings, self.surfaces = variant, settings, surfaces
        self.moved = moved[moved["variant"] == variant]
        self.curve_draws = draws
        self.rows = variant_rows(table, variant)
        self.law = flops_law(table, variant)
        self.n, self.d, self.y = (
            self.rows[name].to_numpy() for name in ("parameters", "tokens", "loss")
        )
        cluster = settings.cluster
        self.clusters = None if cluster is None else self.rows[cluster].astype(str).to_numpy()
        noises = {b: draws.noise(variant, b) for b in budgets(self.rows)}
        self.noise = {b: noise for b, noise in noises.items() if noise is not None}
        self.draws: dict[Estimator, Floats] = {}
        """Of the surfaces, (R, 7)."""
        self.log_sizes: dict[tuple[Estimator, float], Floats] = {}
        """Of noisy minima, (R,)."""
        self.systematics: dict[tuple[Estimator, float], Systematic] = {}

    def fit(self) -> VariantFit:
        """Return all of them."""
        found = minima(
            self.moved,
            self.settings.estimators,
            surfaces={(self.variant, name): fit for name, fit in self.surfaces.items()},
        )
        surfaces = {
            name: self._surface(fit, found)
            for name, fit in self.surfaces.items()
            if name in self.settings.estimators
        }
        fitted = tuple(self._minimum(one) for one in found)
        return VariantFit(
            runs=len(self.rows),
            minima=fitted,
            surface=surfaces.get("surface"),
            variable_projection=surfaces.get("variable_projection"),
            laws=tuple(self._law(one, fitted, surfaces) for one in self.settings.estimators),
            noise={f"{budget:.6g}": noise for budget, noise in self.noise.items()},
            minimum_disagreements=minimum_disagreements(found),
            surface_disagreement=self._surface_disagreement(surfaces),
            notes=tuple(self._notes()),
        )

    def samples(self, fitted: VariantFit) -> Mapping[SurfaceEstimator, SurfaceSample]:
        """Return the surfaces with their copies, once they are fitted."""
        own = {"surface": fitted.surface, "variable_projection": fitted.variable_projection}
        warnings = {name: None if one is None else one.warning for name, one in own.items()}
        return {
            name: SurfaceSample(
                self.variant, fit, self.rows, self.law, self.draws.get(name), warnings[name]
            )
            for name, fit in self.surfaces.items()
            if name in self.settings.estimators
        }

    def _surface_disagreement(
        self, fitted: Mapping[SurfaceEstimator, FittedSurface]
    ) -> SurfaceDisagreement | None:
        fits = {
            ESTIMATOR_NAMES[name]: fit.surface
            for name, fit in self.surfaces.items()
            if name in fitted and fit.status == "converged" and fit.surface is not None
        }
        huber = fitted.get("surface")
        if huber is not None and huber.status == "converged":
            fits |= {f"delta {d}": surface for d, surface in huber.delta_sensitivity.items()}
        return surface_disagreement(tuple(fits), tuple(fits.values()), slope=self.law.slope)

    def _surface(self, fit: SurfaceFit, found: Sequence[CurveMinimum]) -> FittedSurface:
        huber = fit.estimator == "surface"
        known = FittedSurface(
            estimator=fit.estimator,
            status=fit.status,
            message=fit.message,
            points=fit.points,
            condition=fit.condition,
            residual=fit.residual,
            equal_exponents=fit.equal_exponents,
            delta=self.settings.delta if huber else None,
        )
        if fit.surface is None:
            return known
        source = draws_source(fit.points, clustered=self.clusters is not None)
        draws = self._surface_draws(fit)
        self.draws[fit.estimator] = draws
        intervals = surface_intervals(fit, draws, level=self.settings.level, slope=self.law.slope)
        # Where the coefficients are not to be quoted, neither are limits of each; in the limit of
        # many runs a profile's are those there already.
        profiles: Mapping[str, Estimate] = {}
        if fit.status == "converged" and source != "limit":
            profiles = profile_intervals(
                fit,
                self.n,
                self.d,
                self.y,
                delta=self.settings.delta,
                level=self.settings.level,
            )
        fits = goodness(self.rows, fit.surface)
        own = [one for one in found if one.minimum.estimator == fit.estimator]
        return known.model_copy(
            update={
                **{name: intervals[name] for name in QUANTITIES},
                "profiles": profiles,
                "source": source,
                "rms_residual": fits.rms,
                "largest_miss": fits.largest,
                "warning": misfit(fits, fit.points, self.noise.values(), own),
                "delta_sensitivity": self._other_deltas() if huber else {},
            }
        )

    def _surface_draws(self, fit: SurfaceFit) -> Floats:
        return surface_draws(
            fit,
            self.n,
            self.d,
            self.y,
            clusters=self.clusters,
            delta=self.settings.delta,
            resamples=self.settings.resamples,
            seed=self.settings.seed,
            slope=self.law.slope,
        )

    def _other_deltas(self) -> Mapping[str, Surface]:
        fits = {
            f"{delta:g}": fit_huber(
                self.n,
                self.d,
                self.y,
                delta=delta,
                equal_exponents=self.settings.equal_exponents,
            )
            for delta in DELTAS
            if delta != self.settings.delta
        }
        return {
            name: fit.surface
            for name, fit in fits.items()
            if fit.surface is not None and fit.status == "converged"
        }

    def _minimum(self, one: CurveMinimum) -> FittedMinimum:
        minimum = one.minimum
        interval = reason = None
        if minimum.loss is not None:
            if minimum.estimator == "parabola" or minimum.estimator == "akima":
                interval, reason = self._curve_interval(one, minimum.estimator)
            else:
                interval, reason = self._surface_interval(one)
        return FittedMinimum(
            budget_flops=one.budget_flops,
            estimator=minimum.estimator,
            status=minimum.status,
            message=minimum.message,
            parameters=minimum.parameters,
            tokens=one.tokens,
            loss=minimum.loss,
            forward_flops=one.forward_flops,
            side=minimum.side,
            interval=interval,
            reason=reason,
        )

    def _surface_interval(self, one: CurveMinimum) -> tuple[MinimumInterval | None, str | None]:
        estimator, budget = one.minimum.estimator, one.budget_flops
        measured = np.log(self.curve_draws.rows(self.variant, budget)["parameters"])
        sizes, losses = surface_optima(self.draws[estimator], budget, self.law)
        # As of curves: a copy whose minimum is at or beyond an end counts as being there.
        inside = (measured.min() < sizes) & (sizes < measured.max())
        losses = np.where(inside, losses, math.nan)
        sizes = np.clip(sizes, measured.min(), measured.max())
        if np.isfinite(losses).sum() < FEWEST_DRAWS:
            return None, "hardly any noisy copy of the runs has a minimum at the sizes measured"
        source = draws_source(len(self.rows), clustered=self.clusters is not None)
        # Noise lowers the minimum of a curve; a surface through all runs hardly follows it.
        assert one.minimum.loss is not None
        loss = percentile_interval(one.minimum.loss, losses, level=self.settings.level)
        return self._interval(one, loss, sizes, source), None

    def _curve_interval(
        self, one: CurveMinimum, estimator: CurveEstimator
    ) -> tuple[MinimumInterval | None, str | None]:
        minimum, budget = one.minimum, one.budget_flops
        rows = self.curve_draws.rows(self.variant, budget)
        known = known_surfaces(list(self.surfaces.values()))
        wider = systematic(rows, minimum, known, self.law)
        if wider is not None:
            self.systematics[estimator, budget] = wider
        drawn = self.curve_draws.minima(self.variant, budget, estimator)
        interval = None
        if drawn is not None:
            if np.isfinite(drawn[1]).sum() < FEWEST_DRAWS:
                return None, "hardly any noisy copy of the curve has a minimum"
            self.log_sizes[estimator, budget] = drawn[0]
            assert minimum.loss is not None
            loss = basic_interval(minimum.loss, drawn[1], level=self.settings.level)
            interval = self._interval(one, loss, drawn[0], self.noise[budget].source)
        if wider is None:
            reason = "nothing tells how far runs scatter, nor what the estimator gets wrong"
            return interval, None if interval else reason
        return self._widened(one, interval, wider), None

    def _interval(
        self, one: CurveMinimum, loss: Estimate, log_sizes: Floats, source: IntervalSource
    ) -> MinimumInterval:
        level = self.settings.level
        assert one.minimum.parameters is not None
        size = percentile_interval(one.minimum.parameters, np.exp(log_sizes), level=level)
        return MinimumInterval(
            low=loss.low,
            high=loss.high,
            parameters_low=size.low,
            parameters_high=size.high,
            level=level,
            source=source,
            refused=loss.refused,
        )

    def _widened(
        self, one: CurveMinimum, interval: MinimumInterval | None, wider: Systematic
    ) -> MinimumInterval:
        """Return an interval with the systematic error on top, or by that alone."""
        loss, size = one.minimum.loss, one.minimum.parameters
        assert loss is not None
        assert size is not None
        known = interval or MinimumInterval(
            low=loss,
            high=loss,
            parameters_low=size,
            parameters_high=size,
            level=self.settings.level,
            source="systematic",
            refused=0,
        )
        ratio = math.exp(wider.log_size)
        return known.model_copy(
            update={
                "low": known.low - wider.loss,
                "high": known.high + wider.loss,
                "parameters_low": known.parameters_low / ratio,
                "parameters_high": known.parameters_high * ratio,
                "systematic": wider.loss,
                "systematic_ratio": ratio,
            }
        )

    def _law(
        self,
        estimator: Estimator,
        fitted: Sequence[FittedMinimum],
        surfaces: Mapping[SurfaceEstimator, FittedSurface],
    ) -> FittedLaw:
        if estimator == "surface" or estimator == "variable_projection":
            return surface_law(surfaces[estimator], self.surfaces[estimator].surface, self.law)
        return minimum_law(
            estimator,
            [one for one in fitted if one.estimator == estimator],
            {b: sizes for (name, b), sizes in self.log_sizes.items() if name == estimator},
            {b: one for (name, b), one in self.systematics.items() if name == estimator},
            level=self.settings.level,
        )

    def _notes(self) -> list[str]:
        found = []
        moved, off = self.moved[self.moved["state"] == "finished"], scatter(self.rows)
        if off >= TOLD and scatter(moved) <= EXACT:
            found.append(
                "Runs are moved along the surface to the budget that they are grouped to, up to "
                f"{off:.1%} in compute."
            )
        elif off >= TOLD:
            found.append(
                f"Compute lies up to {off:.1%} from the budgets, and no surface tells what that "
                "does to the loss."
            )
        if self.law.misfit > LARGEST_MISFIT:
            found.append(
                f"FLOPs per token lie up to {math.expm1(self.law.misfit):.0%} off the power law "
                "of size that optima of surfaces are taken by."
            )
        return found
