"""What has not been trained yet: the optima of budgets, and the losses of stated sizes and tokens.

The optimum of a budget is told in two ways, whose disagreement is a systematic error bar. By
minima: power laws through the minima of the parabola, of the size and of the loss above the
irreducible one. By surface: its optimum at the new budget, in closed form. Both extrapolate; how
well, leaving out the largest budget tells.

A loss has two intervals: that of the law, which is how well the runs tell the surface, and that of
a new run, which scatters about it as they do.

Axes: R copies of the runs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.moving import EXACT, curve_minimum, moved_draws, scatter
from isoflop.fit.intervals import Floats, most_draws_interval
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.settings import USUAL, Estimator, FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.bootstrap import unfitted_residuals
from isoflop.fit.surfaces.data import DIRECTIONS
from isoflop.fit.surfaces.sample import Samples, SurfaceSample, fit_surfaces
from isoflop.fit.surfaces.surface import losses_at, surface_optima
from isoflop.fit.tables.frame import budgets, curve_rows, finished_variants

Way = Literal["minima", "surface", "variable_projection"]
WAYS: tuple[Way, ...] = ("minima", "surface", "variable_projection")
Drawn = tuple[float, Floats]
"""A value and its copies (R,)."""


class Prediction(Frozen):
    """The optimum of one variant at a budget, before it is trained."""

    variant: str
    budget_flops: float
    way: Way
    parameters: Estimate | None = None
    tokens: Estimate | None = None
    loss: Estimate | None = None
    """Nats per token, of the minimum over sizes."""
    reason: str | None = None
    """Why there is none."""
    extrapolation: float | None = None
    """How many times beyond the compute of the variant's runs the budget is; 1 among them."""
    warning: str | None = None
    """Why the surface does not describe its runs."""


class Miss(Frozen):
    """A prediction beside what was measured."""

    prediction: Prediction
    parameters: float
    loss: float
    """Minimum by the parabola."""
    loss_error: float | None
    """Predicted less measured loss, nats per token."""
    parameter_ratio: float | None
    """Predicted over measured optimal size."""


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


def predict(
    table: pd.DataFrame, budget_flops: float, settings: FitSettings = USUAL
) -> tuple[Prediction, ...]:
    """Return the predicted optimum of every variant at a budget, each of `WAYS`.

    Args:
        table: as `frame` or `run_table` makes it.
        budget_flops: training FLOPs, as the table counts them.
        settings: of the surfaces, and of the intervals, which hold if the laws do.

    Raises:
        ValueError: the budget is not positive, or there is no finished run.
    """
    if not budget_flops > 0 or not math.isfinite(budget_flops):
        raise ValueError(f"budget is {budget_flops:g}; expected positive training FLOPs")
    finished, names = finished_variants(table, " to predict from")
    samples = fit_surfaces(finished, names, settings)
    draws, made = moved_draws(finished, samples, settings), []
    for name, way in itertools.product(names, WAYS):
        one = samples[name]["surface" if way == "minima" else way]
        curves = {key[1]: rows for key, rows in draws.rows.items() if key[0] == name}
        if way == "minima":
            found = _by_minima(one, curves, draws, budget_flops)
        else:
            found = _by_surface(one, len(curves), budget_flops)
        known: dict[str, Estimate] = {}
        if not isinstance(found, str):
            size, loss = found
            at, copies = (one.law.tokens(budget_flops, of) for of in size)
            drawn = {"parameters": size, "tokens": (float(at), copies), "loss": loss}
            known = {key: most_draws_interval(*pair, settings.level) for key, pair in drawn.items()}
        prediction = Prediction(
            variant=name,
            budget_flops=budget_flops,
            way=way,
            **known,
            reason=found if isinstance(found, str) else None,
            extrapolation=one.extrapolation(flops=budget_flops),
            warning=None if way == "minima" else one.warning,
        )
        made.append(prediction)
    return tuple(made)


def leave_largest_out(table: pd.DataFrame, settings: FitSettings = USUAL) -> tuple[Miss, ...]:
    """Return how far the largest budget's minima are from what the smaller ones predict."""
    known = budgets(table[table["state"] == "finished"])
    if len(known) < 2:
        return ()
    smaller = table[table["budget_flops"] < known[-1]]
    return misses(table, predict(smaller, known[-1], settings), settings)


def misses(
    table: pd.DataFrame, predictions: tuple[Prediction, ...], settings: FitSettings = USUAL
) -> tuple[Miss, ...]:
    """Return each prediction whose budget has been trained beside the measured minimum."""
    found, runs = [], table[(table["state"] == "finished") & table["budget_flops"].notna()]
    if scatter(runs) > EXACT:
        samples = fit_surfaces(*finished_variants(table, " to measure"), settings)
        table = moved_draws(table, samples, settings).table
    for one in predictions:
        rows = curve_rows(table, one.variant, one.budget_flops)
        if rows.empty:
            continue
        measured = curve_minimum(rows, "parabola")
        size, loss = measured.parameters, measured.loss
        if size is not None and loss is not None:
            miss = Miss(
                prediction=one,
                parameters=size,
                loss=loss,
                loss_error=None if one.loss is None else one.loss.value - loss,
                parameter_ratio=None if one.parameters is None else one.parameters.value / size,
            )
            found.append(miss)
    return tuple(found)


def predict_point(
    table: pd.DataFrame,
    parameters: float,
    tokens: float,
    *,
    settings: FitSettings = USUAL,
    samples: Samples | None = None,
) -> tuple[PointPrediction, ...]:
    """Return the predicted loss of every variant at a size and number of tokens, by each surface.

    Args:
        table: as `frame` or `run_table` makes it.
        parameters: N, as the table counts them.
        tokens: D.
        settings: of the surfaces and intervals.
        samples: surfaces of the table, where there are some already.

    Raises:
        ValueError: a number is not positive, or there is no finished run.
    """
    for name, value in (("parameters", parameters), ("tokens", tokens)):
        if not value > 0 or not math.isfinite(value):
            raise ValueError(f"{name} is {value:g}; expected a positive number")
    finished, names = finished_variants(table, " to predict from")
    known = samples or fit_surfaces(finished, names, settings)
    made = []
    for one in (known[name][way] for name in names for way in SURFACE_ESTIMATORS):
        at = {"parameters": parameters, "tokens": tokens}
        flops = one.law.flops(**at)
        loss = run = None
        if one.surface is not None:
            value, drawn = float(one.surface.loss(**at)), losses_at(one.draws, **at)
            loss = most_draws_interval(value, drawn, one.settings.level)
            run = most_draws_interval(value, drawn * _scatter(one), one.settings.level)
        prediction = PointPrediction(
            variant=one.variant,
            **at,
            training_flops=flops,
            way=one.fit.estimator,
            loss=loss,
            run=run,
            extrapolation=one.extrapolation(flops=flops, **at),
            warning=one.warning,
            reason=one.fit.message if one.surface is None else None,
        )
        made.append(prediction)
    return tuple(made)


def _by_minima(
    one: SurfaceSample, curves: Mapping[float, pd.DataFrame], draws: CurveDraws, budget: float
) -> tuple[Drawn, Drawn] | str:
    """Return the size and loss by laws through the minima of curves, or why there are none."""
    points, copies = [], []
    for known, rows in curves.items():
        minimum = curve_minimum(rows, "parabola")
        if minimum.parameters is not None and minimum.loss is not None:
            points.append((math.log(known), math.log(minimum.parameters), minimum.loss))
            none = np.full((2, one.settings.resamples), math.nan)
            copies.append(draws.minima(one.variant, known) or none)
    if len(points) < 2:
        have = "1 budget has" if len(points) == 1 else f"{len(points)} budgets have"
        return f"{have} a minimum; a law through them needs two"
    floor = 0.0 if one.surface is None else one.surface.E
    floor = floor if floor < 0.98 * min(loss for *_, loss in points) else 0.0
    log_c, log_n, loss = (np.array(column) for column in zip(*points, strict=True))
    # What each point counts in the value of the line through them at the new budget.
    centred = log_c - log_c.mean()
    beyond = math.log(budget) - log_c.mean()
    weights = 1 / len(log_c) + beyond * centred / (centred @ centred)
    with np.errstate(invalid="ignore", divide="ignore"):
        sizes, losses = np.stack(copies, axis=-1)
        size_draws = np.exp(sizes @ weights)
        loss_draws = floor + np.exp(np.log(losses - floor) @ weights)
    lowest = floor + math.exp(float(np.log(loss - floor) @ weights))
    return (math.exp(float(log_n @ weights)), size_draws), (lowest, loss_draws)


def _by_surface(one: SurfaceSample, curves: int, budget: float) -> tuple[Drawn, Drawn] | str:
    """Return the size and loss of a surface's optimum, or why there are none."""
    if curves < 2:
        return "one budget tells nothing of how the optimum moves with it"
    if one.surface is None:
        return one.fit.message
    log_n, loss = surface_optima([one.surface.row], budget, one.law)
    if not np.isfinite(log_n[0]):
        return "the surface has no minimum along this budget"
    sizes, losses = surface_optima(one.draws, budget, one.law)
    return (math.exp(float(log_n[0])), np.exp(sizes)), (float(loss[0]), losses)


def _scatter(one: SurfaceSample) -> Floats:
    """Return factors (R,) by which a new run may lie off the surface: the runs' own, of any sign.

    Residuals are as large as the noise; what a surface cannot follow is among them.
    """
    assert one.surface is not None
    ways = DIRECTIONS[one.fit.equal_exponents]
    residuals = unfitted_residuals(one.data, one.data.unknowns(one.surface), ways)
    # Other numbers than those behind the draws, which the same seed would give.
    generator = np.random.default_rng((one.settings.seed, len(residuals)))
    size = len(one.draws)
    off = generator.choice(residuals, size) * generator.choice([-1.0, 1.0], size)
    return np.asarray(np.exp(off))
