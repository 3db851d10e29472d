"""What a budget not yet trained will give: the optimal size, its tokens and its loss.

Two ways, whose disagreement is a systematic error bar. By minima: power laws through the minima of
the parabola, of the size and of the loss above the irreducible one. By surface: its optimum at the
new budget, in closed form. Both extrapolate; how well, leaving out the largest budget tells.

Axes: R copies of the runs.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.curves.moving import curve_minimum, moved_draws
from isoflop.fit.intervals import Floats, most_draws_interval
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.minima.parabola import parabola
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces import SURFACE_ESTIMATORS
from isoflop.fit.surfaces.sample import Samples, SurfaceSample, sample_surfaces
from isoflop.fit.surfaces.surface import surface_optima
from isoflop.fit.tables.frame import budgets, curve_rows, finished_variants

Way = Literal["minima", "surface", "variable_projection"]
WAYS: tuple[Way, ...] = ("minima", "surface", "variable_projection")


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


def predict(
    table: pd.DataFrame,
    budget_flops: float,
    settings: FitSettings | None = None,
    draws: CurveDraws | None = None,
) -> tuple[Prediction, ...]:
    """Return the predicted optimum of every variant at a budget, each of `WAYS`.

    Args:
        table: as `frame` or `run_table` makes it.
        budget_flops: training FLOPs, as the table counts them.
        settings: of the surfaces, and of the intervals, which hold if the laws do.
        draws: noisy minima of the runs at their budgets, where they have been drawn already.

    Raises:
        ValueError: the budget is not positive, or there is no finished run.
    """
    if not budget_flops > 0 or not math.isfinite(budget_flops):
        raise ValueError(f"budget is {budget_flops:g}; expected positive training FLOPs")
    asked = settings or FitSettings()
    finished, names = finished_variants(table, " to predict from")
    samples = sample_surfaces(finished, asked)
    moved, known = moved_draws(finished, samples, asked)
    found = []
    for name in names:
        predictor = _Predictor(moved, name, samples, draws or known)
        found += [predictor.by(way, budget_flops) for way in WAYS]
    return tuple(found)


def leave_largest_out(
    table: pd.DataFrame, settings: FitSettings | None = None, draws: CurveDraws | None = None
) -> tuple[Miss, ...]:
    """Return how far the largest budget's minima are from what the smaller ones predict.

    Arguments are those of `predict`.
    """
    known = budgets(table[table["state"] == "finished"])
    if len(known) < 2:
        return ()
    smaller = table[table["budget_flops"] < known[-1]]
    return misses(table, predict(smaller, known[-1], settings, draws))


def misses(table: pd.DataFrame, predictions: tuple[Prediction, ...]) -> tuple[Miss, ...]:
    """Return each prediction whose budget has been trained beside the measured minimum."""
    found = []
    for one in predictions:
        rows = curve_rows(table, one.variant, one.budget_flops)
        if rows.empty:
            continue
        measured = parabola(rows["parameters"].to_numpy(), rows["loss"].to_numpy())
        if measured.loss is None or measured.parameters is None:
            continue
        found.append(
            Miss(
                prediction=one,
                parameters=measured.parameters,
                loss=measured.loss,
                loss_error=None if one.loss is None else one.loss.value - measured.loss,
                parameter_ratio=None
                if one.parameters is None
                else one.parameters.value / measured.parameters,
            )
        )
    return tuple(found)


class _Predictor:
    """Predictions of one variant, from finished runs that are each at their budget."""

    def __init__(
        self, moved: pd.DataFrame, variant: str, samples: Samples, draws: CurveDraws
    ) -> None:
        self.variant, self.draws = variant, draws
        self.samples = {one: samples[variant, one] for one in SURFACE_ESTIMATORS}
        own = moved[moved["variant"] == variant]
        rows = {budget: curve_rows(own, variant, budget) for budget in budgets(own)}
        self.curves = {budget: found for budget, found in rows.items() if len(found)}
        self.law = self.samples["surface"].law
        self.settings = self.samples["surface"].settings

    def by(self, way: Way, budget: float) -> Prediction:
        one = self.samples["surface" if way == "minima" else way]
        made = Prediction(
            variant=self.variant,
            budget_flops=budget,
            way=way,
            extrapolation=one.extrapolation(flops=budget),
            warning=None if way == "minima" else one.warning,
        )
        try:
            found = self._by_minima(budget) if way == "minima" else self._by_surface(one, budget)
        except _NoneToGive as error:
            return made.model_copy(update={"reason": str(error)})
        names = ("parameters", "tokens", "loss")
        level = self.settings.level
        return made.model_copy(
            update={
                name: most_draws_interval(*pair, level)
                for name, pair in zip(names, found, strict=True)
            }
        )

    def _by_minima(self, budget: float) -> tuple[tuple[float, Floats], ...]:
        points, sizes, losses = [], [], []
        for known, rows in self.curves.items():
            minimum = curve_minimum(rows, "parabola")
            if minimum.parameters is None or minimum.loss is None:
                continue
            points.append((math.log(known), math.log(minimum.parameters), minimum.loss))
            drawn = self.draws.minima(self.variant, known)
            if drawn is None:
                drawn = (np.full(self.settings.resamples, math.nan),) * 2
            sizes.append(drawn[0])
            losses.append(drawn[1])
        if len(points) < 2:
            have = "1 budget has" if len(points) == 1 else f"{len(points)} budgets have"
            raise _NoneToGive(f"{have} a minimum; a law through them needs two")
        surface = self.samples["surface"].surface
        floor = 0.0 if surface is None else surface.E
        floor = floor if floor < 0.98 * min(loss for *_, loss in points) else 0.0
        log_c, log_n, loss = (np.array(column) for column in zip(*points, strict=True))
        weights = _weights(log_c, math.log(budget))
        with np.errstate(invalid="ignore", divide="ignore"):
            size_draws = np.exp(np.stack(sizes, 1) @ weights)
            loss_draws = floor + np.exp(np.log(np.stack(losses, 1) - floor) @ weights)
        size = math.exp(float(log_n @ weights))
        return (
            (size, size_draws),
            (float(self.law.tokens(budget, size)), self.law.tokens(budget, size_draws)),
            (floor + math.exp(float(np.log(loss - floor) @ weights)), loss_draws),
        )

    def _by_surface(self, one: SurfaceSample, budget: float) -> tuple[tuple[float, Floats], ...]:
        if len(self.curves) < 2:
            raise _NoneToGive("one budget tells nothing of how the optimum moves with it")
        if one.surface is None:
            raise _NoneToGive(one.fit.message)
        log_n, loss = surface_optima([one.surface.row], budget, self.law)
        if not np.isfinite(log_n[0]):
            raise _NoneToGive("the surface has no minimum along this budget")
        drawn, drawn_losses = surface_optima(one.draws, budget, self.law)
        size, sizes = math.exp(float(log_n[0])), np.exp(drawn)
        return (
            (size, sizes),
            (float(self.law.tokens(budget, size)), self.law.tokens(budget, sizes)),
            (float(loss[0]), drawn_losses),
        )


def _weights(log_c: Floats, log_budget: float) -> Floats:
    """Return what each point counts in the value of the line through them at a new budget."""
    centred = log_c - log_c.mean()
    beyond = log_budget - log_c.mean()
    return np.asarray(1 / len(log_c) + beyond * centred / (centred @ centred))


class _NoneToGive(Exception):
    """Why a prediction cannot be made."""
