"""The fits of one variant: surfaces, minima and laws, with the intervals of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from isoflop.estimate import Estimate
from isoflop.fit.curves.minima import ESTIMATOR_NAMES, CurveMinimum, minima, minimum_disagreements
from isoflop.fit.curves.moving import EXACT, scatter
from isoflop.fit.curves.systematic import Systematic, known_surfaces, systematic
from isoflop.fit.intervals import FEWEST_DRAWS, Floats, draws_interval
from isoflop.fit.laws.optima import FittedLaw, minimum_law, surface_law
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.results import (
    FittedMinimum,
    FittedSurface,
    IntervalSource,
    MinimumInterval,
    VariantFit,
)
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import draws_source, surface_intervals
from isoflop.fit.surfaces.goodness import SurfaceDisagreement, misfit, surface_disagreement
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.sample import SurfaceSample
from isoflop.fit.surfaces.surface import Surface, surface_optima
from isoflop.fit.tables.frame import TOLD, budgets

DELTAS = (1e-4, 1e-2)
"""Other Huber deltas that the surface is fitted with, to see how much hangs on the choice."""
LARGEST_MISFIT = 0.05
"""Log of FLOPs per token off their law of size, above which it is said: at a minimum loss falls
by 0.2 to 0.5 nats for each unit of log tokens, so that it is a hundredth or two."""


class VariantFitter:
    """Makes the fits of one variant, which share its surfaces, noise and draws.

    Args:
        moved: runs, each at its budget: curves go through these.
        asked: estimators of the minima.
        samples: surfaces of the variant by estimator, through the runs as they are; one at least.
            They are told whether they describe the runs.
        draws: noisy minima of the moved runs.
    """

    def __init__(
        self,
        moved: pd.DataFrame,
        asked: Sequence[Estimator],
        samples: Mapping[Estimator, SurfaceSample],
        draws: CurveDraws,
    ) -> None:
        one = next(iter(samples.values()))
        self.variant, self.settings, self.law, self.rows = (
            one.variant,
            one.settings,
            one.law,
            one.rows,
        )
        self.samples, self.asked, self.curve_draws = samples, asked, draws
        self.moved = moved[moved["variant"] == self.variant]
        self.source = draws_source(len(one.data), clustered=self.settings.cluster is not None)
        noises = {b: draws.noise(self.variant, b) for b in budgets(self.rows)}
        self.noise = {b: noise for b, noise in noises.items() if noise is not None}
        self.log_sizes: dict[tuple[Estimator, float], Floats] = {}
        """Of noisy minima, (R,)."""
        self.systematics: dict[tuple[Estimator, float], Systematic] = {}

    def fit(self) -> VariantFit:
        """Return all of them."""
        samples = {(self.variant, name): one for name, one in self.samples.items()}
        found = minima(self.moved, self.asked, samples)
        surfaces = {
            name: self._surface(one, found)
            for name, one in self.samples.items()
            if name in self.asked
        }
        fitted = tuple(self._minimum(one) for one in found)
        return VariantFit(
            runs=len(self.rows),
            minima=fitted,
            surface=surfaces.get("surface"),
            variable_projection=surfaces.get("variable_projection"),
            laws=tuple(self._law(one, fitted, surfaces) for one in self.asked),
            noise={f"{budget:.6g}": noise for budget, noise in self.noise.items()},
            minimum_disagreements=minimum_disagreements(found),
            surface_disagreement=self._surface_disagreement(surfaces),
            notes=tuple(self._notes()),
        )

    def _surface(self, sample: SurfaceSample, found: Sequence[CurveMinimum]) -> FittedSurface:
        fit = sample.fit
        known = FittedSurface(
            estimator=fit.estimator,
            status=fit.status,
            message=fit.message,
            points=fit.points,
            condition=fit.condition,
            residual=fit.residual,
            equal_exponents=fit.equal_exponents,
            delta=fit.delta,
        )
        if fit.surface is None:
            return known
        level = self.settings.level
        # Where the coefficients are not to be quoted, neither are limits of each; in the limit of
        # many runs a profile's are those there already.
        profiles: Mapping[str, Estimate] = {}
        if fit.status == "converged" and self.source != "limit":
            profiles = profile_intervals(fit, sample.data, level=level)
        own = [one.minimum for one in found if one.minimum.estimator == fit.estimator]
        sample.warning = misfit(sample.goodness, fit.points, self.noise.values(), own)
        return known.model_copy(
            update={
                **surface_intervals(fit, sample.draws, level=level, slope=self.law.slope),
                "profiles": profiles,
                "source": self.source,
                "rms_residual": sample.goodness.rms,
                "largest_miss": sample.goodness.largest,
                "warning": sample.warning,
                "delta_sensitivity": {} if fit.delta is None else self._other_deltas(sample),
            }
        )

    def _other_deltas(self, sample: SurfaceSample) -> Mapping[str, Surface]:
        fits = {
            f"{delta:g}": fit_huber(sample.data, replace(self.settings, delta=delta))
            for delta in DELTAS
            if delta != self.settings.delta
        }
        return {
            name: fit.surface
            for name, fit in fits.items()
            if fit.surface is not None and fit.status == "converged"
        }

    def _surface_disagreement(
        self, fitted: Mapping[Estimator, FittedSurface]
    ) -> SurfaceDisagreement | None:
        fits = {
            ESTIMATOR_NAMES[name]: one.surface
            for name, one in self.samples.items()
            if name in fitted and one.surface is not None
        }
        for found in fitted.values():
            if found.status == "converged":
                fits |= {f"delta {d}": other for d, other in found.delta_sensitivity.items()}
        return surface_disagreement(fits, slope=self.law.slope)

    def _minimum(self, one: CurveMinimum) -> FittedMinimum:
        interval = reason = None
        if one.minimum.loss is not None:
            of_curve = one.minimum.estimator in CURVE_ESTIMATORS
            interval, reason = (self._curve_interval if of_curve else self._surface_interval)(one)
        return FittedMinimum(
            **dict(one.minimum),
            budget_flops=one.budget_flops,
            tokens=one.tokens,
            forward_flops=one.forward_flops,
            interval=interval,
            reason=reason,
        )

    def _surface_interval(self, one: CurveMinimum) -> tuple[MinimumInterval | None, str | None]:
        draws = self.samples[one.minimum.estimator].draws
        measured = np.log(self.curve_draws.rows(self.variant, one.budget_flops)["parameters"])
        sizes, losses = surface_optima(draws, one.budget_flops, self.law)
        # As of curves: a copy whose minimum is at or beyond an end counts as being there.
        inside = (measured.min() < sizes) & (sizes < measured.max())
        losses = np.where(inside, losses, math.nan)
        sizes = np.clip(sizes, measured.min(), measured.max())
        if np.isfinite(losses).sum() < FEWEST_DRAWS:
            return None, "hardly any noisy copy of the runs has a minimum at the sizes measured"
        # Noise lowers the minimum of a curve; a surface through all runs hardly follows it.
        return self._interval(one, losses, sizes, self.source, reflected=False), None

    def _curve_interval(self, one: CurveMinimum) -> tuple[MinimumInterval | None, str | None]:
        estimator, budget = one.minimum.estimator, one.budget_flops
        rows = self.curve_draws.rows(self.variant, budget)
        known = known_surfaces([sample.fit for sample in self.samples.values()])
        wider = systematic(rows, one.minimum, known, self.law)
        if wider is not None:
            self.systematics[estimator, budget] = wider
        drawn = self.curve_draws.minima(self.variant, budget, estimator)
        interval = None
        if drawn is not None:
            log_sizes, losses = drawn
            if np.isfinite(losses).sum() < FEWEST_DRAWS:
                return None, "hardly any noisy copy of the curve has a minimum"
            self.log_sizes[estimator, budget] = log_sizes
            source = self.noise[budget].source
            interval = self._interval(one, losses, log_sizes, source, reflected=True)
        if wider is None:
            reason = "nothing tells how far runs scatter, nor what the estimator gets wrong"
            return interval, None if interval else reason
        return self._widened(one, interval, wider), None

    def _interval(
        self,
        one: CurveMinimum,
        losses: Floats,
        log_sizes: Floats,
        source: IntervalSource,
        *,
        reflected: bool,
    ) -> MinimumInterval:
        """Return the interval of noisy minima (R,), that of the loss `reflected` as is said."""
        level = self.settings.level
        assert one.minimum.loss is not None
        assert one.minimum.parameters is not None
        loss = draws_interval(one.minimum.loss, losses, level=level, reflected=reflected)
        low, high = loss.ends
        sizes = draws_interval(one.minimum.parameters, np.exp(log_sizes), level=level).ends
        return MinimumInterval(
            low=low,
            high=high,
            parameters_low=sizes[0],
            parameters_high=sizes[1],
            level=level,
            source=source,
            refused=loss.refused or 0,
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
        surfaces: Mapping[Estimator, FittedSurface],
    ) -> FittedLaw:
        if estimator in surfaces:
            return surface_law(self.samples[estimator], surfaces[estimator].a)
        points = {
            one.budget_flops: one.parameters
            for one in fitted
            if one.estimator == estimator and one.parameters is not None
        }
        return minimum_law(
            estimator,
            points,
            {b: sizes for (name, b), sizes in self.log_sizes.items() if name == estimator},
            {b: one for (name, b), one in self.systematics.items() if name == estimator},
            self.settings.level,
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
