"""What a budget not yet trained will give: the optimal size, its tokens and its loss.

Two ways, whose disagreement is a systematic error bar. By minima: power laws through the minima of
the parabola, of the size and of the loss above the irreducible one. By surface: the minimum of the
loss surface along the new budget. Both extrapolate; how well, leaving out the largest budget tells.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.curves import fit_surface
from isoflop.fit.frame import budgets, curve_rows
from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.interval import LEVEL, percentile_interval
from isoflop.fit.minimum import Floats, parabola
from isoflop.fit.minimum_draws import CurveDraws
from isoflop.fit.resampling import RESAMPLES
from isoflop.fit.surface import SurfaceEstimator, SurfaceFit
from isoflop.fit.surface_bootstrap import lowest_along, surface_draws

Way = Literal["minima", "surface", "variable_projection"]
WAYS: tuple[Way, ...] = ("minima", "surface", "variable_projection")
SPAN = 64.0
"""Sizes within this factor of the power law's answer are searched along a surface."""
SIZES = 1601


class Predicted(Frozen):
    """A number with its interval; ends are missing where the runs tell none."""

    value: float
    low: float | None = None
    high: float | None = None


class Prediction(Frozen):
    """The optimum of one variant at a budget, before it is trained."""

    variant: str
    budget_flops: float
    way: Way
    parameters: Predicted | None = None
    tokens: Predicted | None = None
    loss: Predicted | None = None
    """Nats per token, of the minimum over sizes."""
    reason: str | None = None
    """Why there is none."""


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
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    delta: float = HUBER_DELTA,
    seed: int = 0,
    draws: CurveDraws | None = None,
) -> tuple[Prediction, ...]:
    """Return the predicted optimum of every variant at a budget, each of `WAYS`.

    Args:
        table: as `frame` or `run_table` makes it.
        budget_flops: training FLOPs, as the table counts them.
        level: probability that intervals are to hold, if the laws do.
        resamples: bootstrap samples behind each interval.
        delta: of the Huber loss.
        seed: of the bootstrap.
        draws: noisy minima of the table, where they have been drawn already.

    Raises:
        ValueError: the budget is not positive, or there is no finished run.
    """
    if not budget_flops > 0 or not math.isfinite(budget_flops):
        raise ValueError(f"budget is {budget_flops:g}; expected positive training FLOPs")
    finished = table[table["state"] == "finished"]
    names = finished["variant"].drop_duplicates().tolist()
    if not names:
        raise ValueError("the table has no finished run to predict from")
    drawn = draws or CurveDraws(finished, resamples=resamples, seed=seed)
    found = []
    for name in names:
        predictor = _Predictor(finished, name, budget_flops, level, resamples, delta, seed, drawn)
        found += [predictor.by(way) for way in WAYS]
    return tuple(found)


def leave_largest_out(
    table: pd.DataFrame,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    delta: float = HUBER_DELTA,
    seed: int = 0,
    draws: CurveDraws | None = None,
) -> tuple[Miss, ...]:
    """Return how far the largest budget's minima are from what the smaller ones predict.

    Arguments are those of `predict`.
    """
    known = budgets(table[table["state"] == "finished"])
    if len(known) < 2:
        return ()
    largest = known[-1]
    predictions = predict(
        table[table["budget_flops"] < largest],
        largest,
        level=level,
        resamples=resamples,
        delta=delta,
        seed=seed,
        draws=draws,
    )
    return misses(table, predictions)


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
    def __init__(
        self,
        table: pd.DataFrame,
        variant: str,
        budget: float,
        level: float,
        resamples: int,
        delta: float,
        seed: int,
        draws: CurveDraws,
    ) -> None:
        self.draws = draws
        self.surfaces: dict[SurfaceEstimator, SurfaceFit] = {}
        self.table, self.variant, self.budget = table, variant, budget
        self.level, self.resamples, self.delta, self.seed = level, resamples, delta, seed
        own = table[table["variant"] == variant]
        known = [b for b in budgets(own) if len(curve_rows(table, variant, b))]
        self.rows = pd.concat([curve_rows(table, variant, b) for b in known])
        self.known = known
        columns = ("parameters", "tokens", "loss", "budget_flops")
        self.n, self.d, self.y, self.c = (self.rows[one].to_numpy() for one in columns)
        # Log FLOPs per token as a line in log size: what a new budget's tokens follow from.
        several = len(np.unique(self.n)) > 1
        self.flops_law = (
            np.polyfit(np.log(self.n), np.log(self.c / self.d), 1)
            if several
            else np.array([0.0, math.log(self.c[0] / self.d[0])])
        )

    def by(self, way: Way) -> Prediction:
        try:
            found = self._by_minima() if way == "minima" else self._by_surface(way)
        except _NoneToGive as error:
            return Prediction(
                variant=self.variant, budget_flops=self.budget, way=way, reason=str(error)
            )
        names = ("parameters", "tokens", "loss")
        return Prediction(
            variant=self.variant,
            budget_flops=self.budget,
            way=way,
            **{name: self._interval(*pair) for name, pair in zip(names, found, strict=True)},
        )

    def _interval(self, value: float, draws: Floats) -> Predicted:
        if np.isfinite(draws).sum() < max(10, 0.5 * len(draws)):
            return Predicted(value=value)
        found = percentile_interval(value, draws, level=self.level)
        return Predicted(value=value, low=found.low, high=found.high)

    def _tokens(self, log_n: Floats) -> Floats:
        slope, height = self.flops_law
        return np.asarray(self.budget / np.exp(slope * log_n + height))

    def _surface(self, estimator: SurfaceEstimator) -> SurfaceFit:
        if estimator not in self.surfaces:
            self.surfaces[estimator] = fit_surface(
                self.table, self.variant, estimator, delta=self.delta
            )
        return self.surfaces[estimator]

    def _irreducible(self) -> float:
        """Return E where the runs tell it, else 0."""
        fit = self._surface("surface")
        return fit.surface.E if fit.surface is not None and fit.status == "converged" else 0.0

    def _by_minima(self) -> tuple[tuple[float, Floats], ...]:
        points, sizes, losses = [], [], []
        for budget in self.known:
            rows = curve_rows(self.table, self.variant, budget)
            minimum = parabola(rows["parameters"].to_numpy(), rows["loss"].to_numpy())
            if minimum.parameters is None or minimum.loss is None:
                continue
            points.append((math.log(budget), math.log(minimum.parameters), minimum.loss))
            drawn = self.draws.minima(self.variant, budget)
            if drawn is None:
                drawn = (np.full(self.resamples, math.nan),) * 2
            sizes.append(drawn[0])
            losses.append(drawn[1])
        if len(points) < 2:
            raise _NoneToGive(f"{len(points)} budgets have a minimum; a law through them needs two")
        floor = self._irreducible()
        floor = floor if floor < 0.98 * min(loss for *_, loss in points) else 0.0
        log_c, log_n, loss = (np.array(column) for column in zip(*points, strict=True))
        weights = self._weights(log_c)
        with np.errstate(invalid="ignore", divide="ignore"):
            size_draws = np.stack(sizes, 1) @ weights
            loss_draws = floor + np.exp(np.log(np.stack(losses, 1) - floor) @ weights)
        best = float(log_n @ weights)
        return (
            (math.exp(best), np.exp(size_draws)),
            (float(self._tokens(np.array(best))), self._tokens(size_draws)),
            (floor + math.exp(float(np.log(loss - floor) @ weights)), loss_draws),
        )

    def _weights(self, log_c: Floats) -> Floats:
        """Return what each point counts in the line's value at the new budget."""
        centred = log_c - log_c.mean()
        beyond = math.log(self.budget) - log_c.mean()
        return np.asarray(1 / len(log_c) + beyond * centred / (centred @ centred))

    def _by_surface(
        self, way: Literal["surface", "variable_projection"]
    ) -> tuple[tuple[float, Floats], ...]:
        if len(self.known) < 2:
            raise _NoneToGive("one budget tells nothing of how the optimum moves with it")
        fit = self._surface(way)
        if fit.surface is None or fit.status != "converged":
            raise _NoneToGive(fit.message)
        draws = surface_draws(
            fit,
            self.n,
            self.d,
            self.y,
            delta=self.delta,
            resamples=self.resamples,
            seed=self.seed,
        )
        s = fit.surface
        own = np.array([[s.E, s.A, s.B, s.alpha, s.beta]])
        # Where a size grows as the root of the budget.
        growth = np.log(self.budget / self.c).mean() / 2
        middle = float(np.log(self.n).mean() + growth)
        grid = np.linspace(middle - math.log(SPAN), middle + math.log(SPAN), SIZES)
        log_tokens = np.log(self._tokens(grid))
        value, drawn = (lowest_along(rows, grid, log_tokens) for rows in (own, draws))
        if not np.isfinite(value[0][0]):
            raise _NoneToGive("the surface has no minimum along this budget")
        return (
            (math.exp(value[0][0]), np.exp(drawn[0])),
            (float(self._tokens(value[0])[0]), self._tokens(drawn[0])),
            (float(value[1][0]), drawn[1]),
        )


class _NoneToGive(Exception):
    """Why a prediction cannot be made."""
