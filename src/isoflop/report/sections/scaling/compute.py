"""Loss against compute per range of positions (arXiv 2502.13189, figure 3 and section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import RunRecord
from isoflop.fit.intervals import Floats
from isoflop.fit.spans.values import Axis
from isoflop.notation import percent
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.scaling import (
    AXES,
    AXIS_LABELS,
    AXIS_SHORT,
    ScalingAnalysis,
    Span,
    compute_of,
    final_loss,
)
from isoflop.report.theme import log_ticks
from isoflop.report.words.answers import METHOD, refused_projections
from isoflop.report.words.prose import caption

CURVE_POINTS = 40
"""Points of a training curve that a panel draws at most, spaced evenly in log compute."""

BEYOND = 2.0
"""How far a projection is drawn beyond the largest compute."""

HEADROOM = 0.5
"""Room above the highest final loss of a panel, as a share of the range of its final losses."""

LOSS_COLUMNS = ["row", "panel", "variant", "non_embedding", "seed", "compute", "loss"]

PANEL_HEIGHT = 130
"""Of a panel, pixels."""

_DASH = 4


def section(analysis: ScalingAnalysis) -> blocks.Section:
    """Return the panels by either count of compute, and the coefficients of their lines."""
    panels = [panel(analysis, axis) for axis in AXES]
    parts: list[blocks.Block] = [blocks.Choice("Compute", AXIS_LABELS, panels)]
    if rows := coefficient_rows(analysis):
        parts.append(blocks.table(caption("coefficients", analysis), rows, after=METHOD))
    return blocks.Section("Loss against compute", parts)


def panel(analysis: ScalingAnalysis, axis: Axis) -> draw.Panel:
    """Draw training curves, final losses and projections, or say that there are none."""
    title = f"Loss against compute by position, {AXIS_LABELS[axis]}"
    table = losses_against_compute(analysis, axis)
    if table.empty:
        return draw.Absent(title, "No finished run tells its losses by position.")
    base = alt.Chart().encode(
        x=compute_axis(table["compute"].tolist()), y=loss_axis(), color=analysis.style.colour()
    )
    curves = (
        draw.of_row(base, "curve")
        .mark_line(strokeWidth=0.8, strokeOpacity=0.45, aria=False)
        .encode(
            detail=[alt.Detail("non_embedding:N"), alt.Detail("seed:N")],
            order=alt.Order("compute:Q"),
        )
    )
    # Lines on top of one another take turns, so that each is seen.
    drawn = [name for name in analysis.style.names if name in set(table["variant"])]
    lines = [
        draw.of_row(base, "projection")
        .transform_filter(alt.FieldEqualPredicate(field="variant", equal=name))
        .mark_line(
            strokeWidth=1.8,
            strokeDash=[_DASH, _DASH * max(1, len(drawn) - 1)],
            strokeDashOffset=-_DASH * place,
        )
        for place, name in enumerate(drawn)
    ]
    runs = (
        draw.of_row(base, "run")
        .mark_point(filled=False, size=26, strokeWidth=1.3, opacity=1)
        .encode(
            shape=analysis.style.shape(),
            tooltip=draw.told("variant panel non_embedding:,.0f seed compute:.3~e loss:.4f"),
        )
    )
    short = AXIS_SHORT[axis]
    axes = f"Loss, {analysis.loss_unit}, against PFLOP/s-days ({short})"
    return draw.panels(
        f"loss-against-compute-{short.lower()}",
        title,
        caption("compute", axis, BEYOND, refused_projections(analysis)),
        [curves, *lines, runs],
        table,
        draw.Panels(table["panel"].drop_duplicates().tolist(), axes, PANEL_HEIGHT),
    )


def losses_against_compute(analysis: ScalingAnalysis, axis: Axis) -> pd.DataFrame:
    """Return the rows of the panels: training curves, final losses, ends of projections.

    Columns: `LOSS_COLUMNS`, where `row` is curve, run or projection, `panel` a span in words and
    `compute` in PFLOP/s-days. Curves hold training losses, runs test losses. What of a curve is off
    its panel's scale is left out.
    """
    found: list[tuple[Any, ...]] = []
    runs: list[tuple[Any, ...]] = [
        (name, one.parameters.non_embedding, one.config.seed, one, compute_of(one, axis))
        for name, one in analysis.finished
    ]
    for span, panel in analysis.span_names.items():
        finals = [
            ("run", panel, *of, _rounded(compute), loss)
            for *of, one, compute in runs
            if (loss := final_loss(one, span)) is not None
        ]
        if not finals:
            continue
        ends = min(row[-2] for row in finals), BEYOND * max(compute for *_, compute in runs)
        # A line is straight on logarithmic axes, so that both ends tell it.
        lines = [
            ("projection", panel, name, None, None, compute, round(line.at(compute), 5))
            for name in analysis.names
            if (line := analysis.projection(name, span, axis)) and line.a
            for compute in map(_rounded, ends)
        ]
        shown = [row[-1] for row in (*finals, *lines)]
        top = max(shown) + HEADROOM * max(max(shown) - min(shown), 0.05 * max(shown))
        for *of, one, compute in runs:
            per_step = compute / one.config.steps
            steps, losses = draw.thinned(*_curve(one, span), CURVE_POINTS, logarithmic=True)
            found += [
                ("curve", panel, *of, _rounded(step * per_step), round(loss, 4))
                for step, loss in zip(steps.tolist(), losses.tolist(), strict=True)
                if loss <= top
            ]
        found += finals + lines
    table = pd.DataFrame(found, columns=LOSS_COLUMNS)
    return table.astype({"non_embedding": "Int64", "seed": "Int64"})


def _curve(record: RunRecord, span: Span) -> tuple[Floats, Floats]:
    """Return steps and training losses in a span; none where the record has none."""
    spans = record.config.spans
    at = spans.index(span) if span in spans else len(spans)
    told = [(one.step, one.span_losses[at]) for one in record.curve if len(one.span_losses) > at]
    steps, losses = np.array(told, dtype=np.float64).reshape(-1, 2).T
    known = np.isfinite(losses)
    return steps[known], losses[known]


def _rounded(compute: float) -> float:
    """Return five significant digits, which is more than a figure shows."""
    return float(f"{compute:.4e}")


def compute_axis(values: Sequence[float]) -> alt.X:
    """Return a panel's logarithmic x axis over PFLOP/s-days, its title left to the figure."""
    ticks = log_ticks(min(values) / 1.15, max(values) * 1.15, 4)
    return draw.log_axis("compute", None, values, 1.15, ticks, labelExpr=draw.COMPUTE_LABEL)


def loss_axis() -> alt.Y:
    """Return the logarithmic y axis of a panel, whose title stands above all of them."""
    return alt.Y(
        "loss:Q",
        title=None,
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(tickCount=5, format="~g", labelBound=True),
    )


def coefficient_rows(analysis: ScalingAnalysis) -> list[blocks.Row]:
    """Return a and b of every span and variant on both axes, or why there are none."""
    rows: list[blocks.Row] = []
    for span, name in analysis.short_names.items():
        for variant in analysis.names:
            lines = {axis: analysis.projection(variant, span, axis) for axis in AXES}
            if not any(lines.values()):
                continue
            cells: dict[str, blocks.Text | blocks.Wide | None] = {}
            for axis, line in lines.items():
                a, b = (f"{AXIS_LABELS[axis]}|#{of}" for of in "ab")
                if line is None or line.a is None:
                    why = f"refused: {line.message if line else 'not fitted'}"
                    cells |= {a: blocks.Wide(why, 2), b: None}
                else:
                    cells |= {a: blocks.estimate(line.a, ".3f"), b: blocks.estimate(line.b, ".4f")}
            scatter = next((one.log_residual for one in lines.values() if one), None)
            rows.append(
                {
                    ".Positions": name,
                    ".Variant": blocks.variant(variant),
                    **cells,
                    "#Scatter": blocks.number(scatter, lambda one: percent(one, 2)),
                }
            )
    return rows
