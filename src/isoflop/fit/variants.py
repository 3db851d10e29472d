"""The fits of one variant: surfaces, minima and laws, with the intervals of each."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from isoflop.estimate import Estimate
from isoflop.fit.curves.minima import (
    ESTIMATOR_NAMES,
    CurveMinimum,
    IntervalSource,
    MinimumInterval,
    minima,
    minimum_disagreements,
)
from isoflop.fit.curves.moving import EXACT, scatter
from isoflop.fit.curves.systematic import Systematic, systematic
from isoflop.fit.intervals import FEWEST_DRAWS, draws_interval
from isoflop.fit.laws.envelope import EnvelopeFit
from isoflop.fit.laws.optima import minimum_law, surface_law
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.draws import CurveDraws, RunNoise
from isoflop.fit.results import FittedSurface, VariantFit
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import surface_intervals
from isoflop.fit.surfaces.goodness import misfit, surface_disagreement
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.profile import profile_intervals
from isoflop.fit.surfaces.sample import SurfaceSample
from isoflop.fit.surfaces.surface import surface_optima
from isoflop.fit.tables.frame import TOLD

DELTAS = (1e-4, 1e-2)
"""Other Huber deltas that the surface is fitted with, to see how much hangs on the choice."""
LARGEST_MISFIT = 0.05
"""Log of FLOPs per token off their law of size, above which it is said: at a minimum loss falls
by 0.2 to 0.5 nats for each unit of log tokens, so that it is a hundredth or two."""


def fit_variant(
    asked: Sequence[Estimator],
    samples: Mapping[Estimator, SurfaceSample],
    draws: CurveDraws,
    envelope: EnvelopeFit | None,
) -> VariantFit:
    """Return all fits of one variant, which share its surfaces, noise and draws.

    Args:
        asked: estimators of the minima.
        samples: surfaces of the variant by estimator, through the runs as they are; one at least.
            They are told whether they describe the runs.
        draws: noisy minima of runs that are each at its budget: curves go through these.
        envelope: of the variant's training curves.
    """
    sample = next(iter(samples.values()))
    name, law = sample.variant, sample.law
    own = draws.table[draws.table["variant"] == name]
    found = minima(own, asked, {name: samples})
    noise = {budget: one for (whose, budget), one in draws.noises.items() if whose == name}
    surfaces = {
        one: _surface(sample, noise, found) for one, sample in samples.items() if one in asked
    }
    biases: dict[Estimator, dict[float, Systematic | None]] = defaultdict(dict)
    fits = [one.fit for one in samples.values()]
    fitted = []
    for one in found:
        wider = None
        if one.loss is not None and one.estimator in CURVE_ESTIMATORS:
            wider = systematic(draws.rows[name, one.budget_flops], one, fits, law)
            biases[one.estimator][one.budget_flops] = wider
        held = _held(one, draws, wider, samples.get(one.estimator))
        fitted.append(one.model_copy(update=held))
    usable = {
        name: (one.surface, one.delta_sensitivity)
        for name, one in surfaces.items()
        if one.surface is not None and one.status == "converged"
    }
    apart = {ESTIMATOR_NAMES[name]: one for name, (one, _) in usable.items()}
    for _, others in usable.values():
        apart |= {f"delta {delta}": other for delta, other in others.items()}
    return VariantFit(
        runs=len(sample.rows),
        minima=tuple(fitted),
        surface=surfaces.get("surface"),
        variable_projection=surfaces.get("variable_projection"),
        laws=tuple(
            surface_law(samples[one], surfaces[one].a)
            if one in surfaces
            else minimum_law([own for own in fitted if own.estimator == one], draws, biases[one])
            for one in asked
        ),
        envelope=envelope,
        noise={f"{budget:.6g}": one for budget, one in noise.items()},
        minimum_disagreements=minimum_disagreements(found),
        surface_disagreement=surface_disagreement(apart, slope=law.slope),
        notes=tuple(_notes(own, sample)),
    )


def _surface(
    sample: SurfaceSample, noise: Mapping[float, RunNoise], found: Sequence[CurveMinimum]
) -> FittedSurface:
    """Return a surface with its intervals, and tell the sample whether it describes its runs."""
    fit, level = sample.fit, sample.settings.level
    known = FittedSurface(**dict(fit))
    if fit.surface is None:
        return known
    source = sample.source
    # Where the coefficients are not to be quoted, neither are limits of each; in the limit of
    # many runs a profile's are those there already.
    profiles: Mapping[str, Estimate] = {}
    if fit.status == "converged" and source != "limit":
        profiles = profile_intervals(fit, sample.data, level=level)
    others = {
        f"{delta:g}": fit_huber(sample.data, replace(sample.settings, delta=delta))
        for delta in DELTAS
        if fit.delta is not None and delta != fit.delta
    }
    sensitivity = {name: one.surface for name, one in others.items() if one.status == "converged"}
    own = [one for one in found if one.estimator == fit.estimator]
    sample.warning = misfit(sample.goodness, fit.points, noise.values(), own)
    return known.model_copy(
        update={
            **surface_intervals(fit, sample.draws, level=level, slope=sample.law.slope),
            "profiles": profiles,
            "source": source,
            "rms_residual": sample.goodness.rms,
            "largest_miss": sample.goodness.largest,
            "warning": sample.warning,
            "delta_sensitivity": sensitivity,
        }
    )


def _held(
    one: CurveMinimum,
    draws: CurveDraws,
    wider: Systematic | None,
    sample: SurfaceSample | None,
) -> dict[str, MinimumInterval | str]:
    """Return the interval of a minimum by noise and what is systematic, or why there is none."""
    if one.loss is None or one.parameters is None:
        return {}
    key, level = (one.variant, one.budget_flops), draws.settings.level
    source: IntervalSource = "systematic"
    what = "curve has a minimum"
    if sample is None:
        copies = draws.minima(*key, one.estimator)
        if copies is not None:
            source = draws.noises[key].source
    else:
        source, what = sample.source, "runs has a minimum at the sizes measured"
        measured = np.log(draws.rows[key]["parameters"].to_numpy())
        first, last = measured.min(), measured.max()
        sizes, losses = surface_optima(sample.draws, one.budget_flops, sample.law)
        # As of curves: a copy whose minimum is at or beyond an end counts as being there.
        inside = (first < sizes) & (sizes < last)
        copies = sizes.clip(first, last), np.where(inside, losses, math.nan)
    if copies is None and wider is None:
        return {"reason": "nothing tells how far runs scatter, nor what the estimator gets wrong"}
    if copies is not None and np.isfinite(copies[1]).sum() < FEWEST_DRAWS:
        return {"reason": f"hardly any noisy copy of the {what}"}
    loss = Estimate(value=one.loss, low=one.loss, high=one.loss)
    size = Estimate(value=one.parameters, low=one.parameters, high=one.parameters)
    if copies is not None:
        # Noise lowers the minimum of a curve; a surface through all runs hardly follows it.
        loss = draws_interval(one.loss, copies[1], level=level, reflected=sample is None)
        size = draws_interval(one.parameters, np.exp(copies[0]), level=level)
    off, ratio = (wider.loss, math.exp(wider.log_size)) if wider else (0.0, 1.0)
    return {
        "interval": MinimumInterval(
            low=loss.ends[0] - off,
            high=loss.ends[1] + off,
            parameters_low=size.ends[0] / ratio,
            parameters_high=size.ends[1] * ratio,
            level=level,
            source=source,
            refused=loss.refused or 0,
            systematic=off,
            systematic_ratio=ratio,
        )
    }


def _notes(own: pd.DataFrame, sample: SurfaceSample) -> Iterator[str]:
    moved, off = own[own["state"] == "finished"], scatter(sample.rows)
    if off >= TOLD and scatter(moved) <= EXACT:
        yield (
            "Runs are moved along the surface to the budget that they are grouped to, up to "
            f"{off:.1%} in compute."
        )
    elif off >= TOLD:
        yield (
            f"Compute lies up to {off:.1%} from the budgets, and no surface tells what that "
            "does to the loss."
        )
    if sample.law.misfit > LARGEST_MISFIT:
        yield (
            f"FLOPs per token lie up to {math.expm1(sample.law.misfit):.0%} off the power law "
            "of size that optima of surfaces are taken by."
        )
