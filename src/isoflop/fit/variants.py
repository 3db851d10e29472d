"""The fits of one variant: surfaces, minima and laws, with the intervals of each."""

from __future__ import annotations

import math
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
from isoflop.fit.intervals import FEWEST_DRAWS, Floats, draws_interval
from isoflop.fit.laws.envelope import EnvelopeFit
from isoflop.fit.laws.optima import FittedLaw, minimum_law, surface_law
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.results import FittedSurface, VariantFit
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import DrawsSource, draws_source, surface_intervals
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
    moved: pd.DataFrame,
    asked: Sequence[Estimator],
    samples: Mapping[Estimator, SurfaceSample],
    draws: CurveDraws,
    envelope: EnvelopeFit | None,
) -> VariantFit:
    """Return all fits of one variant, which share its surfaces, noise and draws.

    Args:
        moved: runs, each at its budget: curves go through these.
        asked: estimators of the minima.
        samples: surfaces of the variant by estimator, through the runs as they are; one at least.
            They are told whether they describe the runs.
        draws: noisy minima of the moved runs.
        envelope: of the variant's training curves.
    """
    sample = next(iter(samples.values()))
    name, law = sample.variant, sample.law
    own = moved[moved["variant"] == name]
    found = minima(own, asked, {(name, one): sample for one, sample in samples.items()})
    noise = {budget: one for (whose, budget), one in draws.noises.items() if whose == name}
    surfaces = {
        one: _surface(sample, noise, found) for one, sample in samples.items() if one in asked
    }
    fits = [one.fit for one in samples.values()]
    wider: dict[tuple[Estimator, float], Systematic] = {}
    for one in found:
        if one.loss is not None and one.estimator in CURVE_ESTIMATORS:
            told = systematic(draws.rows[name, one.budget_flops], one, fits, law)
            wider |= {(one.estimator, one.budget_flops): told} if told else {}
    fitted = tuple(
        one
        if one.loss is None
        else one.model_copy(
            update=_curve_interval(one, draws, wider.get((one.estimator, one.budget_flops)))
            if one.estimator in CURVE_ESTIMATORS
            else _surface_interval(one, draws, samples[one.estimator])
        )
        for one in found
    )
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
        minima=fitted,
        surface=surfaces.get("surface"),
        variable_projection=surfaces.get("variable_projection"),
        laws=tuple(
            surface_law(samples[one], surfaces[one].a)
            if one in surfaces
            else _minimum_law(one, fitted, draws, wider)
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
    source = _source(sample)
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


def _source(sample: SurfaceSample) -> DrawsSource:
    return draws_source(len(sample.data), clustered=sample.settings.cluster is not None)


def _surface_interval(
    one: CurveMinimum, draws: CurveDraws, sample: SurfaceSample
) -> dict[str, MinimumInterval | str]:
    """Return the interval of a surface's minimum, or the reason why there is none."""
    rows = draws.rows[one.variant, one.budget_flops]
    measured = np.log(rows["parameters"].to_numpy())
    sizes, losses = surface_optima(sample.draws, one.budget_flops, sample.law)
    # As of curves: a copy whose minimum is at or beyond an end counts as being there.
    inside = (measured.min() < sizes) & (sizes < measured.max())
    losses = np.where(inside, losses, math.nan)
    if np.isfinite(losses).sum() < FEWEST_DRAWS:
        return {"reason": "hardly any noisy copy of the runs has a minimum at the sizes measured"}
    copies = sizes.clip(measured.min(), measured.max()), losses
    # Noise lowers the minimum of a curve; a surface through all runs hardly follows it.
    held = _interval(one, copies, _source(sample), sample.settings.level, reflected=False)
    return {"interval": held}


def _curve_interval(
    one: CurveMinimum, draws: CurveDraws, wider: Systematic | None
) -> dict[str, MinimumInterval | str]:
    """Return the interval of a curve's minimum by noise and what is systematic, or why not."""
    key, level = (one.variant, one.budget_flops), draws.settings.level
    drawn = draws.minima(*key, one.estimator)
    if drawn is not None:
        if np.isfinite(drawn[1]).sum() < FEWEST_DRAWS:
            return {"reason": "hardly any noisy copy of the curve has a minimum"}
        held = _interval(one, drawn, draws.noises[key].source, level, reflected=True)
    elif wider is not None:
        held = _interval(one, None, "systematic", level, reflected=True)
    else:
        reason = "nothing tells how far runs scatter, nor what the estimator gets wrong"
        return {"reason": reason}
    if wider is not None:
        ratio = math.exp(wider.log_size)
        held = held.model_copy(
            update={
                "low": held.low - wider.loss,
                "high": held.high + wider.loss,
                "parameters_low": held.parameters_low / ratio,
                "parameters_high": held.parameters_high * ratio,
                "systematic": wider.loss,
                "systematic_ratio": ratio,
            }
        )
    return {"interval": held}


def _interval(
    one: CurveMinimum,
    copies: tuple[Floats, Floats] | None,
    source: IntervalSource,
    level: float,
    *,
    reflected: bool,
) -> MinimumInterval:
    """Return the interval of copies, log sizes and losses (R,), that of the loss `reflected`."""
    assert one.loss is not None
    assert one.parameters is not None
    (low, high), (smallest, largest), refused = (one.loss,) * 2, (one.parameters,) * 2, 0
    if copies is not None:
        loss = draws_interval(one.loss, copies[1], level=level, reflected=reflected)
        (low, high), refused = loss.ends, loss.refused or 0
        sizes = draws_interval(one.parameters, np.exp(copies[0]), level=level)
        smallest, largest = sizes.ends
    return MinimumInterval(
        low=low,
        high=high,
        parameters_low=smallest,
        parameters_high=largest,
        level=level,
        source=source,
        refused=refused,
    )


def _minimum_law(
    estimator: Estimator,
    fitted: Sequence[CurveMinimum],
    draws: CurveDraws,
    wider: Mapping[tuple[Estimator, float], Systematic],
) -> FittedLaw:
    own = [one for one in fitted if one.estimator == estimator]
    drawn = {
        one.budget_flops: draws.minima(one.variant, one.budget_flops, estimator)
        for one in own
        if one.interval is not None
    }
    return minimum_law(
        estimator,
        {one.budget_flops: one.parameters for one in own if one.parameters is not None},
        {budget: copies[0] for budget, copies in drawn.items() if copies is not None},
        {budget: one for (name, budget), one in wider.items() if name == estimator},
        draws.settings.level,
    )


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
