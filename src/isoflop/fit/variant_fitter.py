"""The fits of one variant: surfaces, minima and laws, with the intervals of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from isoflop.fit.curves import CurveMinimum, fit_surface, minima
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
from isoflop.fit.frame import budgets, curve_rows
from isoflop.fit.huber import fit_huber
from isoflop.fit.interval import Coefficient, Interval, basic_interval, percentile_interval
from isoflop.fit.minimum import ESTIMATOR_NAMES, PARABOLA_SIZES, Estimator, Floats
from isoflop.fit.minimum_draws import CurveDraws
from isoflop.fit.power_law import fit_power_law
from isoflop.fit.profile import profile_intervals
from isoflop.fit.surface import Surface, SurfaceFit, tokens_along_budget
from isoflop.fit.surface_bootstrap import (
    QUANTITIES,
    draws_along_budget,
    draws_source,
    surface_draws,
    surface_intervals,
)

DELTAS = (1e-4, 1e-2)
"""Other Huber deltas that the surface is fitted with, to see how much hangs on the choice."""

FEWEST_DRAWS = 10
"""Copies of the runs that have a value, below which they give no interval."""


class VariantFitter:
    """Makes the fits of one variant, which share its surfaces, noise and draws."""

    def __init__(
        self,
        table: pd.DataFrame,
        variant: str,
        estimators: Sequence[Estimator],
        delta: float,
        level: float,
        resamples: int,
        seed: int,
        cluster: str | None,
        draws: CurveDraws,
    ) -> None:
        self.table, self.variant, self.delta = table, variant, delta
        self.curve_draws = draws
        self.estimators = tuple(estimators)
        self.level, self.resamples, self.seed = level, resamples, seed
        own = table[(table["variant"] == variant) & (table["state"] == "finished")]
        self.budgets = [b for b in budgets(own) if len(curve_rows(table, variant, b))]
        self.rows = pd.concat([curve_rows(table, variant, b) for b in self.budgets])
        self.n, self.d, self.y = (
            self.rows[name].to_numpy() for name in ("parameters", "tokens", "loss")
        )
        self.clusters = None if cluster is None else self.rows[cluster].astype(str).to_numpy()
        noises = {b: draws.noise(variant, b) for b in self.budgets}
        self.noise = {b: noise for b, noise in noises.items() if noise is not None}
        self.surfaces: dict[Estimator, SurfaceFit] = {}
        if "surface" in self.estimators:
            self.surfaces["surface"] = fit_surface(table, variant, "surface", delta=delta)
        if "variable_projection" in self.estimators:
            self.surfaces["variable_projection"] = fit_surface(
                table, variant, "variable_projection"
            )
        self.draws: dict[tuple[Estimator, float], tuple[Floats, Floats]] = {}

    def fit(self) -> VariantFit:
        """Return all of them."""
        surfaces = {name: self._surface(fit) for name, fit in self.surfaces.items()}
        found = minima(
            self.table[self.table["variant"] == self.variant],
            self.estimators,
            surfaces={(self.variant, name): fit for name, fit in self.surfaces.items()},
        )
        fitted = tuple(self._minimum(one) for one in found)
        return VariantFit(
            runs=len(self.rows),
            minima=fitted,
            surface=surfaces.get("surface"),
            variable_projection=surfaces.get("variable_projection"),
            laws=tuple(self._law(estimator, fitted) for estimator in self.estimators),
            noise={f"{budget:.6g}": noise for budget, noise in self.noise.items()},
            minimum_disagreements=minimum_disagreements(found),
            surface_disagreement=self._surface_disagreement(surfaces.get("surface")),
        )

    def _surface_disagreement(self, huber: FittedSurface | None) -> SurfaceDisagreement | None:
        fits = {
            ESTIMATOR_NAMES[name]: fit.surface
            for name, fit in self.surfaces.items()
            if fit.status == "converged" and fit.surface is not None
        }
        if huber is not None and huber.status == "converged":
            fits |= {f"delta {d}": surface for d, surface in huber.delta_sensitivity.items()}
        return surface_disagreement(tuple(fits), tuple(fits.values()))

    def _surface(self, fit: SurfaceFit) -> FittedSurface:
        huber = fit.estimator == "surface"
        known = FittedSurface(
            estimator=fit.estimator,
            status=fit.status,
            message=fit.message,
            points=fit.points,
            condition=fit.condition,
            residual=fit.residual,
            delta=self.delta if huber else None,
            source=draws_source(fit.points, clustered=self.clusters is not None),
        )
        if fit.surface is None:
            return known.model_copy(update={"source": None})
        draws = self._surface_draws(fit)
        intervals = surface_intervals(fit, draws, level=self.level)
        # Where the coefficients are not to be quoted, neither are limits of each; in the limit of
        # many runs a profile's are those there already.
        profiles: Mapping[str, Interval] = {}
        if fit.status == "converged" and known.source != "limit":
            profiles = profile_intervals(
                fit, self.n, self.d, self.y, delta=self.delta, level=self.level
            )
        return known.model_copy(
            update={
                **{name: _coefficient(intervals[name], profiles.get(name)) for name in QUANTITIES},
                "delta_sensitivity": self._other_deltas() if huber else {},
            }
        )

    def _surface_draws(self, fit: SurfaceFit) -> Floats:
        draws = surface_draws(
            fit,
            self.n,
            self.d,
            self.y,
            clusters=self.clusters,
            delta=self.delta,
            resamples=self.resamples,
            seed=self.seed,
        )
        for budget in self.budgets:
            here = curve_rows(self.table, self.variant, budget)
            if here["parameters"].nunique() < PARABOLA_SIZES:
                continue
            self.draws[fit.estimator, budget] = draws_along_budget(
                draws, here["parameters"].to_numpy(), here["tokens"].to_numpy()
            )
        return draws

    def _other_deltas(self) -> Mapping[str, Surface]:
        fits = {
            f"{delta:g}": fit_huber(self.n, self.d, self.y, delta=delta)
            for delta in DELTAS
            if delta != self.delta
        }
        return {
            name: fit.surface
            for name, fit in fits.items()
            if fit.surface is not None and fit.status == "converged"
        }

    def _minimum(self, one: CurveMinimum) -> FittedMinimum:
        minimum, budget = one.minimum, one.budget_flops
        tokens = None
        if minimum.parameters is not None:
            here = curve_rows(self.table, self.variant, budget)
            tokens_at = tokens_along_budget(here["parameters"], here["tokens"])
            tokens = float(tokens_at(np.array(minimum.parameters)))
        return FittedMinimum(
            budget_flops=budget,
            estimator=minimum.estimator,
            status=minimum.status,
            message=minimum.message,
            parameters=minimum.parameters,
            tokens=tokens,
            loss=minimum.loss,
            forward_flops=one.forward_flops,
            side=minimum.side,
            interval=None if minimum.loss is None else self._minimum_interval(one),
        )

    def _minimum_interval(self, one: CurveMinimum) -> MinimumInterval | None:
        minimum, budget = one.minimum, one.budget_flops
        estimator = minimum.estimator
        source: IntervalSource = draws_source(len(self.rows), clustered=self.clusters is not None)
        # Noise lowers the minimum of a curve; a surface through all runs hardly follows it.
        interval = percentile_interval
        if estimator == "parabola" or estimator == "akima":
            found = self.curve_draws.minima(self.variant, budget, estimator)
            if found is None:
                return None
            self.draws[estimator, budget] = found
            source, interval = self.noise[budget].source, basic_interval
        if (estimator, budget) not in self.draws:
            return None
        assert minimum.loss is not None
        assert minimum.parameters is not None
        sizes, losses = self.draws[estimator, budget]
        if np.isfinite(losses).sum() < FEWEST_DRAWS:
            return None
        loss = interval(minimum.loss, losses, level=self.level)
        size = percentile_interval(minimum.parameters, np.exp(sizes), level=self.level)
        return MinimumInterval(
            low=loss.low,
            high=loss.high,
            parameters_low=size.low,
            parameters_high=size.high,
            level=self.level,
            source=source,
            refused=loss.refused,
        )

    def _law(self, estimator: Estimator, fitted: Sequence[FittedMinimum]) -> FittedLaw:
        points = [
            (one.budget_flops, one.parameters)
            for one in fitted
            if one.estimator == estimator and one.parameters is not None
        ]
        law = fit_power_law([c for c, _ in points], [n for _, n in points])
        known = FittedLaw(estimator=estimator, status=law.status, message=law.message, k=law.k)
        if law.a is None:
            return known
        drawn = [self.draws[estimator, c][0] for c, _ in points if (estimator, c) in self.draws]
        low = high = None
        if len(drawn) == len(points):
            x = np.log([c for c, _ in points])
            weights = (x - x.mean()) / np.sum((x - x.mean()) ** 2)
            slopes = np.stack(drawn, axis=1) @ weights
            if np.isfinite(slopes).sum() >= FEWEST_DRAWS:
                found = percentile_interval(law.a, slopes, level=self.level)
                low, high = found.low, found.high
        return known.model_copy(update={"a": Coefficient(value=law.a, low=low, high=high)})


def _coefficient(interval: Interval, profile: Interval | None) -> Coefficient:
    def finite(end: float) -> float | None:
        return end if math.isfinite(end) else None

    return Coefficient(
        value=interval.value,
        low=finite(interval.low),
        high=finite(interval.high),
        profile_low=finite(profile.low) if profile else None,
        profile_high=finite(profile.high) if profile else None,
    )
