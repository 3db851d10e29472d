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
from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.frame import budgets, curve_rows
from isoflop.fit.goodness import noises_about
from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.interval import FEWEST_DRAWS, percentile_interval
from isoflop.fit.minimum import Floats, parabola
from isoflop.fit.minimum_draws import CurveDraws
from isoflop.fit.moved_runs import at_budgets, curve_minimum, moving_surface
from isoflop.fit.optimum import surface_optima
from isoflop.fit.resampling import RESAMPLES
from isoflop.fit.settings import FitSettings
from isoflop.fit.surface import SurfaceEstimator
from isoflop.fit.surface_sample import Samples, SurfaceSample, sample_surface

Way = Literal["minima", "surface", "variable_projection"]
WAYS: tuple[Way, ...] = ("minima", "surface", "variable_projection")
SURFACES: tuple[SurfaceEstimator, ...] = ("surface", "variable_projection")


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
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    delta: float = HUBER_DELTA,
    seed: int = 0,
    draws: CurveDraws | None = None,
    equal_exponents: bool = False,
) -> tuple[Prediction, ...]:
    """Return the predicted optimum of every variant at a budget, each of `WAYS`.

    Args:
        table: as `frame` or `run_table` makes it.
        budget_flops: training FLOPs, as the table counts them.
        level: probability that intervals are to hold, if the laws do.
        resamples: bootstrap samples behind each interval.
        delta: of the Huber loss.
        seed: of the bootstrap.
        draws: noisy minima of the runs at their budgets, where they have been drawn already.
        equal_exponents: whether surfaces have alpha = beta.

    Raises:
        ValueError: the budget is not positive, there is no finished run, or an option is out of
            its range.
    """
    if not budget_flops > 0 or not math.isfinite(budget_flops):
        raise ValueError(f"budget is {budget_flops:g}; expected positive training FLOPs")
    settings = FitSettings(
        delta=delta, level=level, resamples=resamples, seed=seed, equal_exponents=equal_exponents
    )
    finished, names = finished_variants(table)
    samples = sample_surfaces(finished, settings)
    fits = {name: [samples[name, one].fit for one in SURFACES] for name in names}
    moved = at_budgets(finished, {name: moving_surface(own) for name, own in fits.items()})
    drawn = draws or CurveDraws(
        moved, resamples=resamples, seed=seed, about_surfaces=noises_about(finished, fits)
    )
    found = []
    for name in names:
        predictor = _Predictor(moved, name, settings, samples, drawn)
        found += [predictor.by(way, budget_flops) for way in WAYS]
    return tuple(found)


def finished_variants(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the finished runs of a table, and the names of their variants in its order.

    Raises:
        ValueError: there is no finished run.
    """
    finished = table[table["state"] == "finished"]
    names = finished["variant"].drop_duplicates().tolist()
    if not names:
        raise ValueError("the table has no finished run to predict from")
    return finished, names


def sample_surfaces(finished: pd.DataFrame, settings: FitSettings) -> Samples:
    """Return both surfaces of every variant of finished runs, with copies of each."""
    return {
        (name, one): sample_surface(finished, name, one, settings)
        for name in finished["variant"].drop_duplicates().tolist()
        for one in SURFACES
    }


def leave_largest_out(
    table: pd.DataFrame,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    delta: float = HUBER_DELTA,
    seed: int = 0,
    draws: CurveDraws | None = None,
    equal_exponents: bool = False,
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
        equal_exponents=equal_exponents,
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
    """Predictions of one variant.

    Args:
        moved: finished runs, each at its budget.
        variant: whose runs.
        settings: of the intervals.
        samples: surfaces by variant and estimator.
        draws: noisy minima of the runs.
    """

    def __init__(
        self,
        moved: pd.DataFrame,
        variant: str,
        settings: FitSettings,
        samples: Samples,
        draws: CurveDraws,
    ) -> None:
        self.moved, self.variant, self.settings, self.draws = moved, variant, settings, draws
        self.samples: dict[SurfaceEstimator, SurfaceSample] = {
            one: samples[variant, one] for one in SURFACES
        }
        own = moved[moved["variant"] == variant]
        self.known = [b for b in budgets(own) if len(curve_rows(moved, variant, b))]
        self.law = self.samples["surface"].law

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
                name: predicted(*pair, level=level) for name, pair in zip(names, found, strict=True)
            }
        )

    def _irreducible(self) -> float:
        """Return E where the runs tell it, else 0."""
        surface = self.samples["surface"].surface
        return 0.0 if surface is None else surface.E

    def _by_minima(self, budget: float) -> tuple[tuple[float, Floats], ...]:
        points, sizes, losses = [], [], []
        for known in self.known:
            minimum = curve_minimum(curve_rows(self.moved, self.variant, known), "parabola")
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
        floor = self._irreducible()
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
        if len(self.known) < 2:
            raise _NoneToGive("one budget tells nothing of how the optimum moves with it")
        if one.surface is None or one.draws is None:
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


def predicted(value: float, draws: Floats, *, level: float) -> Estimate:
    """Return a value with the interval of its draws (R,), where enough of them have one."""
    if np.isfinite(draws).sum() < max(FEWEST_DRAWS, 0.5 * len(draws)):
        return Estimate(value=value)
    found = percentile_interval(value, draws, level=level)
    return Estimate(value=value, low=found.low, high=found.high)


def _weights(log_c: Floats, log_budget: float) -> Floats:
    """Return what each point counts in the value of the line through them at a new budget."""
    centred = log_c - log_c.mean()
    beyond = log_budget - log_c.mean()
    return np.asarray(1 / len(log_c) + beyond * centred / (centred @ centred))


class _NoneToGive(Exception):
    """Why a prediction cannot be made."""
