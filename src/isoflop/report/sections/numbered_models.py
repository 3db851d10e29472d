"""The four models singled out: training curves and costs per step (arXiv 2404.02258, figure 3)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from isoflop.notation import count, exponent, scientific, significant
from isoflop.papers.numbered import NumberedModel
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.theme import INK
from isoflop.report.words.prose import caption

CURVE_POINTS = 150
"""Points of a training curve that a figure draws at most."""

PANELS = {
    "training-flops": ("Training loss against FLOPs", "flops", "Training FLOPs"),
    "training-seconds": ("Training loss against wall-clock", "seconds", "Wall-clock, seconds"),
    "flops-per-step": ("FLOPs per step", "flops_per_step", "Training FLOPs per step"),
    "steps-per-second": ("Steps per second", "steps_per_second", "Steps per second"),
}
"""By name of a figure: its title, the column that it shows, the axis of that."""
_COSTS = (
    *("#Parameters", ".Shape", "#Loss"),
    *("#Forward FLOPs per token", "#FLOPs per step", "#Steps per second"),
)


def section(analysis: Analysis) -> blocks.Section:
    """Return for each budget the numbered models, their training and their costs."""
    parts: list[blocks.Block] = []
    for result in analysis.budgets:
        if len(analysis.budgets) > 1:
            parts.append(blocks.Heading(result.told))
        if result.figure3:
            parts.append(_table(analysis, result))
        parts.append(blocks.Pair(panels(analysis, result)))
    return blocks.Section("Models singled out", parts)


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
    unmeasured = costs.loc[costs["steps_per_second"].isna(), "number"].tolist()
    found: list[draw.Panel] = []
    for name, (title, column, axis) in PANELS.items():
        of_curves = name.startswith("training")
        shown = (curves if of_curves else costs).dropna(subset=[column])
        if shown.empty:
            why = caption("no_curves" if column == "flops" else "unmeasured")
            found.append(draw.Absent(title, why))
            continue
        shown = shown if of_curves else bar_rows(shown, column)
        layers = (_lines if of_curves else _bars)(analysis, shown, column, axis)
        told = caption("numbered", name, missing, unmeasured, analysis.study.convention)
        named = (f"{name}-{exponent(result.budget_flops)}", title, told)
        height = 300 if of_curves else 260
        found.append(draw.figure(*named, layers, shown, height=height, width=draw.HALF_WIDTH))
    return found


def model_costs(analysis: Analysis, models: Sequence[NumberedModel]) -> pd.DataFrame:
    """Return one row per numbered model that was trained, with its costs.

    Columns: `number`, `model` (a label), `variant`, `parameters`, `blocks`, `width`, `loss`,
    `forward_flops` (per token), `flops_per_step`, `steps_per_second` (missing unless measured).
    """
    rows = []
    columns = {"variant", "parameters", "blocks", "width", "loss", "forward_flops"}
    for number, size in [(one.number, one.model) for one in models if one.model]:
        record = analysis.records[size.run_ids[0]]
        flops = record.train_flops[analysis.study.convention] / record.config.steps
        speed = analysis.evidence.steps_per_second(size.variant, size.parameters, flops)
        rows.append(
            {
                "number": number,
                "model": f"{number}  {size.variant}, {count(size.parameters)}",
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
    rows: list[tuple[int, int, float, float]] = []
    for one in models:
        seeds = zip(one.model.seeds, one.model.run_ids, strict=True) if one.model else ()
        for seed, run_id in seeds:
            curve = [(point.step, point.loss) for point in analysis.records[run_id].curve]
            steps, losses = np.array(curve, dtype=np.float64).reshape(-1, 2).T
            points = draw.thinned(steps, losses, CURVE_POINTS)
            rows += [(one.number, seed, int(at), loss) for at, loss in zip(*points, strict=True)]
    table = pd.DataFrame(rows, columns=["number", "seed", "step", "loss"]).merge(
        costs[["number", "model", "variant", "flops_per_step", "steps_per_second"]]
    )
    table["flops"] = table["step"] * table["flops_per_step"]
    table["seconds"] = table["step"] / table["steps_per_second"]
    return table[["number", "model", "variant", "seed", "step", "loss", "flops", "seconds"]]


def bar_rows(costs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return the rows of a bar chart of the column `value` of `model_costs`."""
    table = costs[["number", "variant", "parameters", value]].copy()
    table["bar"] = [f"{one[1]}\n{one[2]}\n{count(one[3])}" for one in table.itertuples()]
    table["label"] = [
        exponent(height) if height >= 1e5 else significant(height) for height in table[value]
    ]
    return table


def _table(analysis: Analysis, result: BudgetResult) -> blocks.Table:
    """Return the numbered models of Figure 3's rules, then of Figure 4's."""
    rows: list[blocks.Row] = []
    for rule, models in (("Figure 3", result.figure3), ("Figure 4", result.figure4)):
        costs = {row["number"]: row for row in model_costs(analysis, models).to_dict("records")}
        for one in models:
            row: dict[str, blocks.Text | blocks.Wide | None] = {
                ".Rule": rule,
                "#No.": str(one.number),
                ".Variant": blocks.Wide(f"Missing: {one.reason}", 1 + len(_COSTS)),
                **dict.fromkeys(_COSTS),
            }
            if one.model:
                cost = costs[one.number]
                speed = cost["steps_per_second"]
                told = (
                    count(one.model.parameters),
                    f"{one.model.blocks} \N{MULTIPLICATION SIGN} {one.model.width}",
                    f"{one.model.loss:.4f}",
                    scientific(one.model.forward_flops, 3, trim=False),
                    scientific(cost["flops_per_step"], 3, trim=False),
                    "not measured" if math.isnan(speed) else significant(speed),
                )
                row[".Variant"] = blocks.variant(one.model.variant)
                row |= dict(zip(_COSTS, told, strict=True))
            rows.append(row)
    return blocks.table(caption("numbered_table"), rows)


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
