"""The four models singled out: training curves and costs per step (arXiv 2404.02258, figure 3)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import altair as alt
import pandas as pd

from isoflop.config import CurvePoint
from isoflop.notation import count, exponent, scientific, significant
from isoflop.papers.numbered import NumberedModel
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Block, Heading, Pair, Section, Table, Text, Wide, columns, variant
from isoflop.report.figure import HALF_WIDTH, POWER_LABEL, Absent, Figure, Panel, figure, padded
from isoflop.report.theme import INK

CURVE_POINTS = 150
"""Points of a training curve that a figure draws at most."""

UNMEASURED = (
    "Not measured. Run 'isoflop bench train' on this study's file while the machine is idle, "
    "then make the report again. The sweep's own timings are not used, since its runs share "
    "the machine."
)
_DASHES = ([1, 0], [6, 3])


def section(analysis: Analysis) -> Section:
    """Return for each budget the numbered models, their training and their costs."""
    blocks: list[Block] = []
    for result in analysis.budgets:
        if len(analysis.budgets) > 1:
            blocks.append(Heading(f"{scientific(result.budget_flops)} FLOPs"))
        rows = model_rows(analysis, result)
        if rows:
            blocks.append(_table(rows))
        blocks.append(Pair(panels(analysis, result)))
    return Section("Models singled out", blocks)


def panels(analysis: Analysis, result: BudgetResult) -> tuple[Panel, ...]:
    """Draw training loss against FLOPs and against wall-clock, FLOPs per step, steps per second."""
    missing = " ".join(
        f"Model {one.number} ({one.rule}) is missing: {one.reason}."
        for one in result.figure3
        if one.model is None
    )
    costs = model_costs(analysis, result.figure3)
    if costs.empty:
        why = missing or "The study has no routed variant to single out."
        return (Absent("Four models", why),)
    curves = training_curves(analysis, result.figure3, costs)
    measured = costs.dropna(subset=["steps_per_second"])
    unmeasured = costs.loc[costs["steps_per_second"].isna(), "number"]
    partly = ""
    if 0 < len(measured) < len(costs):
        partly = " Not measured: " + ", ".join(f"model {n}" for n in unmeasured) + "."
    slug, timed = exponent(result.budget_flops), curves.dropna(subset=["seconds"])
    cut = "One line per seed. The early part, which is off the scale, is cut. " + missing
    clock = "Wall-clock is steps over measured steps per second." + partly
    counted = f"Counted, {analysis.study.convention} convention; backward is twice forward."
    idle = "Measured by 'isoflop bench train', the models in turn on an idle machine." + partly
    titles = (
        "Training loss against FLOPs",
        "Training loss against wall-clock",
        "FLOPs per step",
        "Steps per second",
    )
    return (
        Absent(titles[0], "The records hold no training curve.")
        if curves.empty
        else _training(analysis, f"training-flops-{slug}", titles[0], curves, cut),
        Absent(titles[1], UNMEASURED)
        if timed.empty
        else _training(analysis, f"training-seconds-{slug}", titles[1], timed, clock),
        _bars(analysis, f"flops-per-step-{slug}", titles[2], costs, counted),
        Absent(titles[3], UNMEASURED)
        if measured.empty
        else _bars(analysis, f"steps-per-second-{slug}", titles[3], measured, idle),
    )


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
                "steps_per_second": speed,
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
        rows, columns=["number", "model", "variant", "seed", "step", "loss", "flops", "seconds"]
    )


def bar_rows(costs: pd.DataFrame, value: str) -> pd.DataFrame:
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


def model_rows(analysis: Analysis, result: BudgetResult) -> list[list[Text | Wide]]:
    """Return the numbered models of Figure 3's rules, then of Figure 4's."""
    rows: list[list[Text | Wide]] = []
    for rule, models in (("Figure 3", result.figure3), ("Figure 4", result.figure4)):
        table = model_costs(analysis, models)
        costs = {row["number"]: row for row in table.to_dict("records")}
        rows += [[rule, str(one.number), *_told(one, costs.get(one.number))] for one in models]
    return rows


def _told(one: NumberedModel, cost: dict[Hashable, Any] | None) -> list[Text | Wide]:
    if one.model is None or cost is None:
        return [Wide(f"Missing: {one.reason}", 7)]
    speed = cost["steps_per_second"]
    return [
        variant(one.model.variant),
        count(one.model.parameters),
        f"{one.model.blocks} \N{MULTIPLICATION SIGN} {one.model.width}",
        f"{one.model.loss:.4f}",
        scientific(one.model.forward_flops, 3, trim=False),
        scientific(cost["flops_per_step"], 3, trim=False),
        "not measured" if math.isnan(speed) else significant(speed),
    ]


def _table(rows: list[list[Text | Wide]]) -> Table:
    return Table(
        "Numbered models. By the rules of Figure 3: 1 the baseline at its optimum, 2 a baseline of "
        "about twice its size, 3 and 4 routed models in the shapes of 1 and 2. By those of Figure "
        "4: see the figure above.",
        columns(
            ".Rule",
            "#No.",
            ".Variant",
            "#Parameters",
            ".Shape",
            "#Loss",
            "#Forward FLOPs per token",
            "#FLOPs per step",
            "#Steps per second",
        ),
        rows,
    )


def _training(
    analysis: Analysis, name: str, title: str, table: pd.DataFrame, caption: str
) -> Figure:
    """Draw the training loss of the numbered models against what the figure's name says."""
    clock = name.startswith("training-seconds")
    column, axis = ("seconds", "Wall-clock, seconds") if clock else ("flops", "Training FLOPs")
    models = table.drop_duplicates("number").sort_values("number")
    labels = [str(label) for label in models["model"]]
    colours = [analysis.style.colour_of(variant) for variant in models["variant"]]
    dashes = [_DASHES[0] if number % 2 else _DASHES[1] for number in models["number"]]
    columns = alt.ExprRef(f"width < 280 ? 1 : {min(2, len(labels))}")
    legend = alt.Legend(columns=columns, symbolSize=260, symbolStrokeWidth=2, symbolType="stroke")
    powers = table[column].max() >= 1e5
    late = table[table[column] >= 0.2 * table[column].max()]
    domain = padded(list(late["loss"]))
    chart = (
        alt.Chart()
        .transform_filter(f"datum.loss <= {domain[1]!r}")
        .mark_line(strokeWidth=1.5, strokeOpacity=0.85)
        .encode(
            x=alt.X(
                f"{column}:Q",
                title=axis,
                scale=alt.Scale(domainMin=0, nice=False),
                axis=alt.Axis(
                    grid=False, tickCount=5, labelExpr=POWER_LABEL if powers else alt.Undefined
                ),
            ),
            y=alt.Y(
                "loss:Q",
                title=f"Training loss, {analysis.loss_unit}",
                scale=alt.Scale(domain=domain, zero=False, nice=False),
                axis=alt.Axis(tickCount=6),
            ),
            color=alt.Color(
                "model:N", scale=alt.Scale(domain=labels, range=colours), legend=legend
            ),
            strokeDash=alt.StrokeDash(
                "model:N", scale=alt.Scale(domain=labels, range=dashes), legend=legend
            ),
            detail="seed:N",
            order=f"{column}:Q",
        )
    )
    return figure(name, title, caption, [chart], table, height=300, width=HALF_WIDTH)


def _bars(analysis: Analysis, name: str, title: str, costs: pd.DataFrame, caption: str) -> Figure:
    """Draw one number per numbered model as a bar with the number written on it."""
    flops = name.startswith("flops-per-step")
    column, axis = (
        ("flops_per_step", "Training FLOPs per step")
        if flops
        else ("steps_per_second", "Steps per second")
    )
    table = bar_rows(costs, column)
    powers = table[column].max() >= 1e5
    order = [str(axis) for axis in table.sort_values("number")["bar"]]
    base = alt.Chart().encode(
        x=alt.X(
            "bar:N",
            title=None,
            sort=order,
            scale=alt.Scale(paddingInner=0.35, paddingOuter=0.2),
            axis=alt.Axis(
                labelExpr="split(datum.label, '\\n')",
                labelAngle=0,
                labelLimit=86,
                labelOverlap=False,
                ticks=False,
                labelPadding=6,
                labelLineHeight=14,
            ),
        ),
        y=alt.Y(
            f"{column}:Q",
            title=axis,
            scale=alt.Scale(domain=[0, 1.12 * float(table[column].max())], nice=False),
            axis=alt.Axis(tickCount=5, labelExpr=POWER_LABEL if powers else alt.Undefined),
        ),
    )
    rectangles = base.mark_bar(opacity=0.9).encode(color=analysis.style.colour(legend=False))
    texts = base.mark_text(dy=-8, fontSize=12, color=INK).encode(text="label:N")
    return figure(name, title, caption, [rectangles, texts], table, height=260, width=HALF_WIDTH)


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
