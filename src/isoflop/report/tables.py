"""The tables behind the figures, one row per thing that is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from isoflop.config import CurvePoint, RunRecord
from isoflop.fit.intervals import WithError
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.numbered import NumberedModel
from isoflop.fit.tables.frame import TrainedSize
from isoflop.notation import count, exponent, significant
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.published import COLUMNS, OURS
from isoflop.report.speeds import BenchRow, steps_per_second

NoEnds = tuple[None, None]

CURVE_POINTS = 150
"""Points of a training curve that a figure draws at most."""


def curves(analysis: Analysis) -> pd.DataFrame:
    """Return the rows of the U-curves: runs, means over seeds, minima and refusals.

    Means and minima come with the ends of their 95% intervals. A refused
    minimum has a row of its own at the lowest mean, so that it is seen as refused.
    """
    rows: list[tuple[str, str, float, float, float, int | None, float | None, float | None]] = []
    for result in analysis.budgets:
        budget = result.budget_flops
        for variant in [one.name for one in analysis.study.variants]:
            sizes = analysis.sizes(variant, budget)
            for size in sizes:
                what = "run" if size.on_ladder else "off_ladder"
                rows += [
                    (what, variant, budget, size.parameters, loss, seed, None, None)
                    for seed, loss in zip(size.seeds, size.seed_losses, strict=True)
                ]
            ladder = analysis.ladder(variant, budget)
            noise = analysis.noise(variant, budget)
            rows += [
                ("mean", variant, budget, s.parameters, s.loss, None, *_mean_interval(s, noise))
                for s in ladder
            ]
            found = result.headline(variant)
            if found is None:
                continue
            minimum = found.minimum
            if minimum.parameters is not None and minimum.loss is not None:
                interval = result.intervals.get((variant, minimum.estimator))
                ends = (interval.low, interval.high) if interval else (None, None)
                rows.append(
                    ("minimum", variant, budget, minimum.parameters, minimum.loss, None, *ends)
                )
            elif ladder:
                low = min(ladder, key=lambda size: size.loss)
                rows.append(
                    ("refused", variant, budget, low.parameters, low.loss, None, None, None)
                )
    columns = ["row", "variant", "budget_flops", "parameters", "loss", "seed", "low", "high"]
    kinds = {"seed": "Int64", "low": "float64", "high": "float64"}
    return pd.DataFrame(rows, columns=columns).astype(kinds)


def _mean_interval(size: TrainedSize, noise: RunNoise | None) -> tuple[float, float] | NoEnds:
    """Return the 95% interval of a size's mean loss, from the spread of all of its curve's runs."""
    if noise is None:
        return None, None
    error = math.hypot(noise.run_spread, noise.seed_spread) / math.sqrt(len(size.seed_losses))
    freedom = noise.run_freedom + noise.seed_freedom
    return WithError(value=size.loss, error=error, degrees_of_freedom=freedom).interval().ends


def relative_losses(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return each size's forward FLOPs and loss over the reference baseline's, one budget.

    Columns: `variant`, `parameters`, `forward_flops_ratio`, `loss_ratio`, `numbers` (text, missing
    but for the four models of Figure 4), `on_ladder`.
    """
    reference = result.reference
    assert reference is not None
    # One trained size may hold two numbers: the optimal challenger may be the cheapest match too.
    numbers: dict[tuple[str, ...], list[str]] = {}
    for one in result.figure4:
        if one.model is not None:
            numbers.setdefault(one.model.run_ids, []).append(str(one.number))
    rows = [
        (
            size.variant,
            size.parameters,
            size.forward_flops / reference.forward_flops,
            size.loss / reference.loss,
            ", ".join(numbers.get(size.run_ids, ())) or None,
            size.on_ladder,
        )
        for variant in analysis.study.variants
        for size in analysis.sizes(variant.name, result.budget_flops)
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "variant",
            "parameters",
            "forward_flops_ratio",
            "loss_ratio",
            "numbers",
            "on_ladder",
        ],
    )


def model_costs(
    analysis: Analysis, models: Sequence[NumberedModel], speeds: Sequence[BenchRow]
) -> pd.DataFrame:
    """Return one row per numbered model that was trained, with its costs.

    Columns: `number`, `model` (a label), `variant`, `parameters`, `blocks`, `width`, `loss`,
    `forward_flops` (per token), `flops_per_step`, `steps_per_second` (missing unless measured).
    """
    rows = []
    for one in models:
        if one.model is None:
            continue
        size = one.model
        flops = flops_per_step(analysis, analysis.records[size.run_ids[0]])
        rows.append(
            {
                "number": one.number,
                "model": f"{one.number}  {size.variant}, {count(size.parameters)}",
                "variant": size.variant,
                "parameters": size.parameters,
                "blocks": size.blocks,
                "width": size.width,
                "loss": size.loss,
                "forward_flops": size.forward_flops,
                "flops_per_step": flops,
                "steps_per_second": steps_per_second(speeds, size.variant, size.parameters, flops),
            }
        )
    return pd.DataFrame(rows).astype({"steps_per_second": "float64"}) if rows else pd.DataFrame()


def training_curves(
    analysis: Analysis, models: Sequence[NumberedModel], costs: pd.DataFrame
) -> pd.DataFrame:
    """Return the training curves of the numbered models against FLOPs and measured seconds.

    Columns: `number`, `model`, `variant`, `seed`, `step`, `loss`, `flops`, `seconds`.
    """
    rows = []
    by_number = costs.set_index("number") if len(costs) else costs
    for one in models:
        if one.model is None:
            continue
        cost = by_number.loc[one.number]
        for seed, run_id in zip(one.model.seeds, one.model.run_ids, strict=True):
            rows += [
                (
                    one.number,
                    cost["model"],
                    one.model.variant,
                    seed,
                    point.step,
                    point.loss,
                    point.step * cost["flops_per_step"],
                    point.step / cost["steps_per_second"],
                )
                for point in thinned(analysis.records[run_id].curve)
            ]
    return pd.DataFrame(
        rows,
        columns=["number", "model", "variant", "seed", "step", "loss", "flops", "seconds"],
    )


def bars(costs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of a bar chart of the column `value` of `model_costs`."""
    table = costs[["number", "variant", "parameters", value]].dropna(subset=[value]).copy()
    table["bar"] = [
        f"{row['number']}\n{row['variant']}\n{count(row['parameters'])}"
        for row in table.to_dict("records")
    ]
    table["label"] = [
        exponent(height) if height >= 1e5 else significant(height)
        for height in table[value].tolist()
    ]
    return table


def our_minima(analysis: Analysis) -> pd.DataFrame:
    """Return our minima over the baseline's, with the columns of the published ones."""
    rows = [
        (
            OURS,
            name,
            f"{exponent(result.budget_flops)} FLOPs, {HEADLINE}",
            comparison.parameter_ratio,
            1 + comparison.relative_difference,
        )
        for result in analysis.budgets
        for name, comparison in result.comparisons.items()
        if comparison.relative_difference is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def our_points(analysis: Analysis) -> pd.DataFrame:
    """Return Figure 4's models 3 and 4 over model 1, with the columns of the published points."""
    words = {3: "matching mod", 4: "optimal mod"}
    rows = [
        (
            OURS,
            one.model.variant,
            f"{exponent(result.budget_flops)} FLOPs, {words[one.number]}",
            one.model.forward_flops / result.reference.forward_flops,
            one.model.loss / result.reference.loss,
        )
        for result in analysis.budgets
        for one in result.figure4
        if one.number in words and one.model and result.reference and result.reference_bracketed
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def flops_per_step(analysis: Analysis, record: RunRecord) -> float:
    """Return the training FLOPs of one step under the study's convention."""
    return record.train_flops[analysis.study.convention] / record.config.steps


def thinned(curve: Sequence[CurvePoint], at_most: int = CURVE_POINTS) -> list[CurvePoint]:
    """Return a curve with at most `at_most` points, neighbours averaged by the steps they cover."""
    if len(curve) <= at_most:
        return list(curve)
    group = -(-len(curve) // at_most)
    points, before = [], 0
    for start in range(0, len(curve), group):
        members = curve[start : start + group]
        total = 0.0
        first = before
        for point in members:
            total += point.loss * (point.step - before)
            before = point.step
        points.append(CurvePoint(step=before, loss=total / (before - first)))
    return points
