"""What a run of a stated size and number of tokens will reach, by each surface.

Two intervals: that of the law, which is how well the runs tell the surface, and that of a new run,
which scatters about it as they do.

Axes: R copies of the runs.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.intervals import Floats, most_draws_interval
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.bootstrap import unfitted_residuals
from isoflop.fit.surfaces.data import directions
from isoflop.fit.surfaces.sample import Samples, SurfaceSample, sample_surfaces
from isoflop.fit.surfaces.surface import losses_at
from isoflop.fit.tables.frame import finished_variants


class PointPrediction(Frozen):
    """The loss of one variant at a stated size and number of tokens."""

    variant: str
    parameters: float
    tokens: float
    training_flops: float
    """As the variant's runs count them."""
    way: Estimator
    loss: Estimate | None = None
    """Of the law: nats per token, on average over runs."""
    run: Estimate | None = None
    """Of one new run, which scatters about the law as the runs do."""
    extrapolation: float
    """How many times beyond the variant's runs this is, in size, tokens or compute, whichever is
    farthest out; 1 among them."""
    warning: str | None = None
    """Why the surface does not describe its runs."""
    reason: str | None = None
    """Why there is no loss."""


def predict_point(
    table: pd.DataFrame,
    parameters: float,
    tokens: float,
    *,
    settings: FitSettings | None = None,
    samples: Samples | None = None,
) -> tuple[PointPrediction, ...]:
    """Return the predicted loss of every variant at a size and number of tokens, by each surface.

    Args:
        table: as `frame` or `run_table` makes it.
        parameters: N, as the table counts them.
        tokens: D.
        settings: of the surfaces and intervals; the usual ones if left out.
        samples: surfaces of the table, where there are some already.

    Raises:
        ValueError: a number is not positive, or there is no finished run.
    """
    for name, value in (("parameters", parameters), ("tokens", tokens)):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} is {value:g}; expected a positive number")
    asked = settings or FitSettings()
    finished, names = finished_variants(table, " to predict from")
    known = samples or sample_surfaces(finished, asked)
    return tuple(
        _predicted(known[name, one], parameters, tokens)
        for name in names
        for one in SURFACE_ESTIMATORS
    )


def _predicted(one: SurfaceSample, parameters: float, tokens: float) -> PointPrediction:
    flops = one.law.flops(parameters, tokens)
    made = PointPrediction(
        variant=one.variant,
        parameters=parameters,
        tokens=tokens,
        training_flops=flops,
        way=one.fit.estimator,
        extrapolation=one.extrapolation(flops=flops, parameters=parameters, tokens=tokens),
        warning=one.warning,
    )
    if one.surface is None:
        return made.model_copy(update={"reason": one.fit.message})
    level = one.settings.level
    value = float(one.surface.loss(parameters, tokens))
    drawn = losses_at(one.draws, parameters, tokens)
    return made.model_copy(
        update={
            "loss": most_draws_interval(value, drawn, level),
            "run": most_draws_interval(value, drawn * _scatter(one), level),
        }
    )


def _scatter(one: SurfaceSample) -> Floats:
    """Return factors (R,) by which a new run may lie off the surface: the runs' own, of any sign.

    Residuals are as large as the noise; what a surface cannot follow is among them.
    """
    assert one.surface is not None
    ways = directions(equal_exponents=one.fit.equal_exponents)
    residuals = unfitted_residuals(one.data, one.data.unknowns(one.surface), ways)
    # Other numbers than those behind the draws, which the same seed would give.
    generator = np.random.default_rng((one.settings.seed, len(residuals)))
    size = len(one.draws)
    off = generator.choice(residuals, size) * generator.choice([-1.0, 1.0], size)
    return np.asarray(np.exp(off))
