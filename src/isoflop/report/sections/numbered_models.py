"""The four models singled out: training curves and costs per step (arXiv 2404.02258, figure 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import CurvePoint
from isoflop.notation import count, exponent, scientific, significant
from isoflop.papers.numbered import NumberedModel
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Block, Heading, Pair, Section, Table, Text, Wide, columns, variant
from isoflop.report.theme import INK

CURVE_POINTS = 150
"""Points of a training curve that a figure draws at most."""

UNMEASURED = (
    "Not measured. Run 'isoflop bench train' on this study's file while the machine is idle, "
    "then make the report again. The sweep's own timings are not used, since its runs share "
    "the machine."
)
PANELS = {
    "training-flops": (
        *("Training loss against FLOPs", "flops", "Training FLOPs"),
        "One line per seed. The early part, which is off the scale, is cut. {missing}",
    ),
    "training-seconds": (
        *("Training loss against wall-clock", "seconds", "Wall-clock, seconds"),
        "Wall-clock is steps over measured steps per second.{partly}",
    ),
    "flops-per-step": (
        *("FLOPs per step", "flops_per_step", "Training FLOPs per step"),
        "Counted, {convention} convention; backward is twice forward.",
    ),
    "steps-per-second": (
        *("Steps per second", "steps_per_second", "Steps per second"),
        "Measured by 'isoflop bench train', the models in turn on an idle machine.{partly}",
    ),
}
"""By name of a figure: its title, the column that it shows, the axis of that, and its caption."""


def section(analysis: Analysis) -> Section:
    """Return for each budget the numbered models, their training and their costs."""
    blocks: list[Block] = []
    for result in analysis.budgets:
        if len(analysis.budgets) > 1:
            blocks.append(Heading(result.told))
        if result.figure3:
            blocks.append(_table(analysis, result))
        blocks.append(Pair(panels(analysis, result)))
    return Section("Models singled out", blocks)


def panels(analysis: Analysis, result: BudgetResult) -> list[draw.Panel]:
    """Draw training loss against FLOPs and against wall-clock, FLOPs per step, steps per second."""
    missing = " ".join(
        f"Model {one.number} ({one.rule}) is missing: {one.reason}."
        for one in result.figure3
        if one.model is None
    )
    costs = model_costs(analysis, result.figure3)
    if costs.empty:
        why = missing or "The study has no routed variant to single out."
        return [draw.Absent("Four models", why)]
    curves = training_curves(analysis, result.figure3, costs)
    unmeasured = costs.loc[costs["steps_per_second"].isna(), "number"]
    partly = " Not measured: " + ", ".join(f"model {number}" for number in unmeasured) + "."
    words = {
        "missing": missing,
        "partly": partly if len(unmeasured) else "",
        "convention": analysis.study.convention,
    }
    found: list[draw.Panel] = []
    for name, (title, column, axis, caption) in PANELS.items():
        of_curves = name.startswith("training")
        shown = (curves if of_curves else costs).dropna(subset=[column])
        if shown.empty:
            why = "The records hold no training curve." if column == "flops" else UNMEASURED
            found.append(draw.Absent(title, why))
            continue
        shown = shown if of_curves else bar_rows(shown, column)
        layers = (_lines if of_curves else _bars)(analysis, shown, column, axis)
        drawn = (f"{name}-{exponent(result.budget_flops)}", title, caption.format(**words), layers)
        height = 300 if of_curves else 260
        found.append(draw.figure(*drawn, shown, height=height, width=draw.HALF_WIDTH))
    return found


def model_costs(analysis: Analysis, models: Sequence[NumberedModel]) -> pd.DataFrame:
    """Return one row per numbered model that was trained, with its costs.

    Columns: `number`, `model` (a label), `variant`, `parameters`, `blocks`, `width`, `loss`,
    `forward_flops` (per token), `flops_per_step`, `steps_per_second` (missing unless measured).
    """
    rows = []
    for one in models:
        if one.model is None:
            continue
        size = one.model
        record = analysis.records[size.run_ids[0]]
        flops = record.train_flops[analysis.study.convention] / record.config.steps
        speed = analysis.evidence.steps_per_second(size.variant, size.parameters, flops)
        columns = {"variant", "parameters", "blocks", "width", "loss", "forward_flops"}
        rows.append(
            {
                "number": one.number,
                "model": f"{one.number}  {size.variant}, {count(size.parameters)}",
                **size.model_dump(include=columns),
                "flops_per_step": flops,
                "steps_per_second": math.nan if speed is None else speed,
            }
        )
    return pd.DataFrame(rows)


def training_curves(
    analysis: Analysis, models: Sequence[NumberedModel], costs: pd.DataFrame
) -> pd.DataFrame:
    """Return the training curves of the numbered models against FLOPs and measured seconds.

    Columns: `number`, `model`, `variant`, `seed`, `step`, `loss`, `flops`, `seconds`.
    """
    rows = [
        (one.number, seed, step, loss)
        for one in models
        if one.model
        for seed, run_id in zip(one.model.seeds, one.model.run_ids, strict=True)
        for step, loss in thinned(analysis.records[run_id].curve)
    ]
    table = pd.DataFrame(rows, columns=["number", "seed", "step", "loss"]).merge(
        costs[["number", "model", "variant", "flops_per_step", "steps_per_second"]]
    )
    table["flops"] = table["step"] * table["flops_per_step"]
    table["seconds"] = table["step"] / table["steps_per_second"]
    return table[["number", "model", "variant", "seed", "step", "loss", "flops", "seconds"]]


def thinned(curve: Sequence[CurvePoint], at_most: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """Return steps and losses of at most `at_most` points.

    Neighbours are averaged by the steps that they cover.
    """
    if not curve:
        return []
    steps = np.array([0, *(point.step for point in curve)])
    starts = np.arange(0, len(curve), -(-len(curve) // at_most))
    summed = np.array([point.loss for point in curve]) * np.diff(steps)
    edges = steps[[*starts, len(curve)]]
    means = np.add.reduceat(summed, starts) / np.diff(edges)
    return list(zip(edges[1:].tolist(), means.tolist(), strict=True))


def bar_rows(costs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of a bar chart of the column `value` of `model_costs`."""
    table = costs[["number", "variant", "parameters", value]].copy()
    table["bar"] = [f"{one[1]}\n{one[2]}\n{count(one[3])}" for one in table.itertuples()]
    table["label"] = [
        exponent(height) if height >= 1e5 else significant(height) for height in table[value]
    ]
    return table


def _table(analysis: Analysis, result: BudgetResult) -> Table:
    """Return the numbered models of Figure 3's rules, then of Figure 4's."""
    rows: list[list[Text | Wide]] = []
    for rule, models in (("Figure 3", result.figure3), ("Figure 4", result.figure4)):
        costs = {row["number"]: row for row in model_costs(analysis, models).to_dict("records")}
        for one in models:
            rows.append([rule, str(one.number)])
            if one.model is None:
                rows[-1].append(Wide(f"Missing: {one.reason}", 7))
                continue
            cost = costs[one.number]
            speed = cost["steps_per_second"]
            rows[-1] += [
                variant(one.model.variant),
                count(one.model.parameters),
                f"{one.model.blocks} \N{MULTIPLICATION SIGN} {one.model.width}",
                f"{one.model.loss:.4f}",
                scientific(one.model.forward_flops, 3, trim=False),
                scientific(cost["flops_per_step"], 3, trim=False),
                "not measured" if math.isnan(speed) else significant(speed),
            ]
    return Table(
        "Numbered models. By the rules of Figure 3: 1 the baseline at its optimum, 2 a baseline of "
        "about twice its size, 3 and 4 routed models in the shapes of 1 and 2. By those of Figure "
        "4: see the figure above.",
        columns(
            *(".Rule", "#No.", ".Variant", "#Parameters", ".Shape", "#Loss"),
            *("#Forward FLOPs per token", "#FLOPs per step", "#Steps per second"),
        ),
        rows,
    )


def _lines(analysis: Analysis, shown: pd.DataFrame, column: str, axis: str) -> list[alt.Chart]:
    """Draw the training loss of the numbered models, a dashed line for the second of each size."""
    models = shown.drop_duplicates("number").sort_values("number")
    labels = models["model"].tolist()
    legend = alt.Legend(
        columns=alt.ExprRef(f"width < 280 ? 1 : {min(2, len(labels))}"),
        symbolSize=260,
        symbolStrokeWidth=2,
        symbolType="stroke",
    )
    colours = [analysis.style.colour_of(variant) for variant in models["variant"]]
    dashes = [[1, 0] if number % 2 else [6, 3] for number in models["number"]]
    end = shown[column].max()
    late = shown.loc[shown[column] >= 0.2 * end, "loss"].tolist()
    y = draw.linear_axis(alt.Y, "loss", f"Training loss, {analysis.loss_unit}", late)
    x = draw.linear_axis(alt.X, column, axis, [0, end], 0, grid=False, **_ticks(end))
    colour, dash = alt.Scale(domain=labels, range=colours), alt.Scale(domain=labels, range=dashes)
    lines = alt.Chart().transform_filter(f"datum.loss <= {draw.padded(late)[1]!r}")
    return [
        lines.mark_line(strokeWidth=1.5, strokeOpacity=0.85).encode(
            x=x,
            y=y,
            color=alt.Color("model:N", scale=colour, legend=legend),
            strokeDash=alt.StrokeDash("model:N", scale=dash, legend=legend),
            detail=alt.Detail("seed:N"),
            order=alt.Order(f"{column}:Q"),
        )
    ]


def _bars(analysis: Analysis, shown: pd.DataFrame, column: str, axis: str) -> list[alt.Chart]:
    """Draw one number per numbered model as a bar with the number written on it."""
    highest = float(shown[column].max())
    base = alt.Chart().encode(
        x=alt.X(
            "bar:N",
            title=None,
            sort=shown.sort_values("number")["bar"].tolist(),
            scale=alt.Scale(paddingInner=0.35, paddingOuter=0.2),
            axis=alt.Axis(
                labelExpr=draw.LINES_LABEL,
                labelAngle=0,
                labelLimit=86,
                labelOverlap=False,
                ticks=False,
                labelPadding=6,
                labelLineHeight=14,
            ),
        ),
        y=draw.linear_axis(alt.Y, column, axis, [0, 1.12 * highest], 0, **_ticks(highest)),
    )
    return [
        base.mark_bar(opacity=0.9).encode(color=analysis.style.colour(legend=False)),
        base.mark_text(dy=-8, fontSize=12, color=INK).encode(text=alt.Text("label:N")),
    ]


def _ticks(highest: float) -> dict[str, Any]:
    return {"tickCount": 5, "labelExpr": draw.POWER_LABEL if highest >= 1e5 else alt.Undefined}
