"""Loss against compute per range of positions (arXiv 2502.13189, figure 3 and section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import RunRecord
from isoflop.estimate import Estimate
from isoflop.fit.intervals import Floats
from isoflop.fit.spans.values import Axis
from isoflop.notation import percent
from isoflop.report.blocks import (
    NONE,
    Block,
    Choice,
    Section,
    Table,
    Text,
    Wide,
    columns,
    variant,
    with_ends,
)
from isoflop.report.figure import COMPUTE_LABEL, Absent, Panel, Panels, panels, tooltips
from isoflop.report.scaling import AXES, ScalingAnalysis, Span, compute_of, final_loss
from isoflop.report.theme import log_ticks
from isoflop.report.words.prose import told
from isoflop.report.words.scaling import METHOD, refusals

AXIS_LABELS: Mapping[Axis, str] = {"6nd": "6ND (as published)", "causal": "exact FLOPs"}
AXIS_SHORT: Mapping[Axis, str] = {"6nd": "6ND", "causal": "exact"}

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

_Row = tuple[str, str, str, int | None, int | None, float, float]


def section(analysis: ScalingAnalysis) -> Section:
    """Return the panels by either count of compute, and the coefficients of their lines."""
    drawn = [(axis, AXIS_LABELS[axis], panel(analysis, axis)) for axis in AXES]
    blocks: list[Block] = [Choice("Compute", drawn)]
    rows = coefficient_rows(analysis)
    if rows:
        blocks.append(_coefficients(analysis, rows))
    return Section("Loss against compute", blocks)


def panel(analysis: ScalingAnalysis, axis: Axis) -> Panel:
    """Draw training curves, final losses and projections, or say that there are none."""
    title = f"Loss against compute by position, {AXIS_LABELS[axis]}"
    table = losses_against_compute(analysis, axis)
    if table.empty:
        return Absent(title, "No finished run tells its losses by position.")
    base = alt.Chart().encode(
        x=compute_axis(table["compute"].tolist()), y=loss_axis(), color=analysis.style.colour()
    )
    tooltip = tooltips(
        ("variant:N", "Variant"),
        ("panel:N", "Losses"),
        ("non_embedding:Q", "N", ",.0f"),
        ("seed:Q", "Seed"),
        ("compute:Q", "PFLOP/s-days", ".3~e"),
        ("loss:Q", "Test loss", ".4f"),
    )
    curves = (
        base.transform_filter("datum.row === 'curve'")
        .mark_line(strokeWidth=0.8, strokeOpacity=0.45, aria=False)
        .encode(
            detail=[alt.Detail("non_embedding:N"), alt.Detail("seed:N")],
            order=alt.Order("compute:Q"),
        )
    )
    # Lines on top of one another take turns, so that each is seen.
    drawn = [name for name in analysis.style.names if name in set(table["variant"])]
    lines = [
        base.transform_filter("datum.row === 'projection'")
        .transform_filter(alt.FieldEqualPredicate(field="variant", equal=name))
        .mark_line(
            strokeWidth=1.8,
            strokeDash=[_DASH, _DASH * max(1, len(drawn) - 1)],
            strokeDashOffset=-_DASH * place,
        )
        for place, name in enumerate(drawn)
    ]
    runs = (
        base.transform_filter("datum.row === 'run'")
        .mark_point(filled=False, size=26, strokeWidth=1.3, opacity=1)
        .encode(shape=analysis.style.shape(), tooltip=tooltip)
    )
    short = AXIS_SHORT[axis]
    return panels(
        f"loss-against-compute-{short.lower()}",
        title,
        told("captions", "compute", {}, axis, BEYOND, refusals(analysis))[0],
        [curves, *lines, runs],
        table,
        Panels(
            table["panel"].drop_duplicates().tolist(),
            f"Loss, {analysis.loss_unit}, against PFLOP/s-days ({short})",
            PANEL_HEIGHT,
        ),
    )


def losses_against_compute(analysis: ScalingAnalysis, axis: Axis) -> pd.DataFrame:
    """Return the rows of the panels: training curves, final losses, ends of projections.

    Columns: `LOSS_COLUMNS`, where `row` is curve, run or projection, `panel` a span in words and
    `compute` in PFLOP/s-days. Curves hold training losses, runs test losses. What of a curve is off
    its panel's scale is left out.
    """
    rows: list[_Row] = []
    runs = [(name, one, compute_of(one, axis)) for name, one in analysis.finished]
    for span, panel in analysis.span_names.items():
        finals: list[_Row] = [
            ("run", panel, name, *_of(one), _rounded(compute), loss)
            for name, one, compute in runs
            if (loss := final_loss(one, span)) is not None
        ]
        if not finals:
            continue
        ends = min(row[5] for row in finals), BEYOND * max(compute for *_, compute in runs)
        # A line is straight on logarithmic axes, so that both ends tell it.
        lines: list[_Row] = [
            ("projection", panel, name, None, None, compute, round(line.at(compute), 5))
            for name in analysis.names
            if (line := analysis.projection(name, span, axis)) and line.a
            for compute in map(_rounded, ends)
        ]
        shown = [row[6] for row in (*finals, *lines)]
        top = max(shown) + HEADROOM * max(max(shown) - min(shown), 0.05 * max(shown))
        for name, one, compute in runs:
            per_step = compute / one.config.steps
            rows += [
                ("curve", panel, name, *_of(one), _rounded(step * per_step), round(loss, 4))
                for step, loss in log_thinned(_curve(one, span)).tolist()
                if loss <= top
            ]
        rows += finals + lines
    table = pd.DataFrame(rows, columns=LOSS_COLUMNS)
    return table.astype({"non_embedding": "Int64", "seed": "Int64"})


def log_thinned(curve: Floats, at_most: int = CURVE_POINTS) -> Floats:
    """Return a curve with at most `at_most` points, about evenly spaced in log steps.

    Neighbours are averaged by the steps they cover; the last step stays.

    Args:
        curve: steps and losses, (n, 2).
        at_most: points.
    """
    if len(curve) <= at_most:
        return curve
    steps, losses = curve.T
    covered = np.diff(steps, prepend=0)
    edges = np.geomspace(steps[0], steps[-1], at_most) * (1 - 1e-12)
    passed = np.searchsorted(edges, steps, side="right")
    starts = np.flatnonzero(np.diff(np.r_[-1, 0, passed[:-1]]))
    sums = [np.add.reduceat(each, starts) for each in (covered, covered * losses)]
    return np.column_stack([np.cumsum(sums[0]), sums[1] / sums[0]])


def _curve(record: RunRecord, span: Span) -> Floats:
    """Return steps and training losses in a span, (n, 2); empty where the record has none."""
    spans = record.config.spans
    at = spans.index(span) if span in spans else len(spans)
    told = [(one.step, one.span_losses[at]) for one in record.curve if len(one.span_losses) > at]
    curve = np.array(told, dtype=np.float64).reshape(-1, 2)
    return curve[np.isfinite(curve[:, 1])]


def _of(record: RunRecord) -> tuple[int, int]:
    return record.parameters.non_embedding, record.config.seed


def _rounded(compute: float) -> float:
    """Return five significant digits, which is more than a figure shows."""
    return float(f"{compute:.4e}")


def compute_axis(values: Sequence[float]) -> alt.X:
    """Return a panel's logarithmic x axis over PFLOP/s-days, its title left to the figure."""
    low, high = min(values) / 1.15, max(values) * 1.15
    return alt.X(
        "compute:Q",
        title=None,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=log_ticks(low, high, 4), labelExpr=COMPUTE_LABEL, grid=False),
    )


def loss_axis() -> alt.Y:
    """Return the logarithmic y axis of a panel, whose title stands above all of them."""
    return alt.Y(
        "loss:Q",
        title=None,
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(tickCount=5, format="~g", labelBound=True),
    )


def coefficient_rows(analysis: ScalingAnalysis) -> list[list[Text | Wide]]:
    """Return a and b of every span and variant on both axes, or why there are none."""
    rows: list[list[Text | Wide]] = []
    for span, name in analysis.short_names.items():
        for one in analysis.names:
            found = [analysis.projection(one, span, axis) for axis in AXES]
            if all(line is None for line in found):
                continue
            cells: list[Text | Wide] = []
            for line in found:
                if line is None or line.a is None or line.b is None:
                    cells.append(Wide(f"refused: {line.message if line else 'not fitted'}", 2))
                else:
                    cells += [_with_interval(line.a, ".3f"), _with_interval(line.b, ".4f")]
            scatter = [
                line.log_residual for line in found if line and line.log_residual is not None
            ]
            told = percent(scatter[0], 2) if scatter else NONE
            rows.append([name, variant(one), *cells, told])
    return rows


def _with_interval(one: Estimate, form: str) -> Text:
    return with_ends(format(one.value, form), one.interval_words(form))


def _coefficients(analysis: ScalingAnalysis, rows: list[list[Text | Wide]]) -> Table:
    return Table(
        "Projections L = a C^b with C in PFLOP/s-days, so that a is the loss at 1 PFLOP/s-day, and "
        f"their {percent(analysis.level, 0)} intervals. The last column is the standard deviation "
        "of log loss about the line, by 6 N D.",
        columns(".Positions", ".Variant", *("#a", "#b") * len(AXES), "#Scatter"),
        rows,
        groups=[("", 1), ("", 1), *((AXIS_LABELS[axis], 2) for axis in AXES), ("", 1)],
        after=f" {METHOD}",
    )
