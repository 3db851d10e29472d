"""The published curves and fits of loss against compute (arXiv 2502.13189, figure 3), and ours."""

from __future__ import annotations

import math
from functools import cache

import altair as alt
import pandas as pd

from isoflop.config import BlockAttention
from isoflop.notation import percent
from isoflop.papers.moba import published_scaling, refits
from isoflop.report.blocks import Section, Table, columns
from isoflop.report.figure import Figure, Panels, panels
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.sections.scaling.compute import (
    BEYOND,
    HEADROOM,
    PANEL_HEIGHT,
    compute_axis,
    loss_axis,
)
from isoflop.report.theme import BASELINE_COLOUR, CHALLENGER_COLOURS
from isoflop.report.words.prose import told

POINTS = 24
"""Points of a published curve that a panel draws at most."""

KINDS = {
    "curve": "digitised curves",
    "published": "published fits",
    "refit": "our fits to these curves",
}
"""What the lines of the figure are."""

LINE_COLUMNS = ["panel", "order", "attention", "curve", "compute", "loss", "kind"]

ATTENTION_WORDS = {"moba": "MoBA", "full": "full attention"}

_WHOLE = {"8K": "all of an 8K context", "32K last2K": "last 2K of 32K"}
_DASHES: tuple[list[float], ...] = ([1, 0], [6, 3], [1.5, 2])


def section(analysis: ScalingAnalysis) -> Section | None:
    """Return the published figure and coefficients; None without block attention to compare."""
    if not any(isinstance(one.attention, BlockAttention) for one in analysis.study.variants):
        return None
    return Section("Beside the published figure", _blocks())


@cache
def _blocks() -> tuple[Figure, Table]:
    """Return what no study changes."""
    lines, coefficients = published_lines()
    return figure(lines, coefficients), table(coefficients)


def published_lines() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what the paper shows, its 2K ranges of a 32K context first: lines and coefficients.

    Lines have the columns `panel`, `order` (of the panels), `attention`, `curve` (its number, any
    for fits), `compute` (PFLOP/s-days), `loss`, `kind` (one of `KINDS`). Coefficients have `panel`,
    `order`, `attention`, `a`, `b` (published), `refit_a`, `refit_b` (by the method of this study,
    from the digitised curves) and `apart`, the largest distance of both lines over the compute
    trained, as a share of the loss.
    """
    points, lines = published_scaling()
    keys = ["panel", "attention"]
    ours = refits().query("method == 'ends'").set_index(keys)[["a", "b", "relative_difference"]]
    ours.columns = pd.Index(["refit_a", "refit_b", "apart"])
    ends = points.groupby([*keys, "curve"])["compute"].last().groupby(level=keys)
    lines = lines.join(ours, on=keys).join(ends.agg(["min", "max"]), on=keys)
    names = {
        panel: _WHOLE.get(panel) or f"{start // 1024}K\N{EN DASH}{stop // 1024}K"
        for panel, start, stop in lines[["panel", "start", "stop"]].to_numpy()
    }
    order = sorted(names, key=lambda panel: panel in _WHOLE)
    points, lines = (
        table.assign(
            order=table["panel"].map(order.index),
            panel=table["panel"].map(names),
            attention=table["attention"].map(ATTENTION_WORDS),
        )
        for table in (points, lines)
    )
    fits = [
        (one["panel"], one["order"], one["attention"], -1, c, round(one[a] * c ** one[b], 5), kind)
        for one in lines.to_dict("records")
        for kind, a, b in (("published", "a", "b"), ("refit", "refit_a", "refit_b"))
        for c in (one["min"], BEYOND * one["max"])
    ]
    curves = points.assign(kind="curve")[LINE_COLUMNS]
    return pd.concat([curves, pd.DataFrame(fits, columns=LINE_COLUMNS)], ignore_index=True), lines


def figure(lines: pd.DataFrame, coefficients: pd.DataFrame) -> Figure:
    """Draw the published curves with both fits, a panel per published range."""
    table = _visible(lines)
    order = table.sort_values("order")["panel"].drop_duplicates().tolist()
    attentions = list(ATTENTION_WORDS.values())[::-1]
    base = alt.Chart().encode(
        x=compute_axis(table["compute"].tolist()),
        y=loss_axis(),
        color=alt.Color(
            "attention:N",
            scale=alt.Scale(domain=attentions, range=[BASELINE_COLOUR, CHALLENGER_COLOURS[0]]),
            legend=alt.Legend(symbolOpacity=1, symbolType="stroke", symbolStrokeWidth=2),
        ),
        strokeDash=alt.StrokeDash(
            "kind_words:N",
            scale=alt.Scale(domain=list(KINDS.values()), range=list(_DASHES)),
            legend=alt.Legend(
                orient="bottom",
                symbolSize=260,
                symbolStrokeWidth=1.5,
                symbolType="stroke",
                columns=1,
            ),
        ),
        detail=alt.Detail("curve:N"),
        order=alt.Order("compute:Q"),
    )
    table = table.assign(kind_words=table["kind"].map(KINDS))
    curves = base.transform_filter("datum.kind === 'curve'").mark_line(
        strokeWidth=0.8, strokeOpacity=0.5, aria=False
    )
    fits = base.transform_filter("datum.kind !== 'curve'").mark_line(strokeWidth=1.6)
    return panels(
        "published-losses",
        "Published, not trained here: loss against compute, full attention and block attention",
        told("captions", "published", {}, coefficients["apart"])[0],
        [curves, fits],
        table,
        Panels(
            order, "Published: loss, nats per token, against PFLOP/s-days by 6 N D", PANEL_HEIGHT
        ),
    )


def _visible(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines thinned, without what of the curves is off a panel's scale."""
    curve = ["attention", "curve"]
    kept: list[pd.DataFrame] = []
    for _, panel in lines.groupby("order"):
        curves = panel[panel["kind"] == "curve"]
        finals = curves.groupby(curve)["loss"].last()
        top = finals.max() + 2 * HEADROOM * (finals.max() - finals.min())
        for _, own in curves[curves["loss"] <= top].groupby(curve):
            # Counted from the end, so that the last point stays.
            kept.append(own.iloc[:: -math.ceil(len(own) / POINTS)].iloc[::-1])
        kept.append(panel[(panel["kind"] != "curve") & (panel["loss"] <= top)])
    return pd.concat(kept, ignore_index=True)


def table(coefficients: pd.DataFrame) -> Table:
    """Return the published coefficients beside ours from the same curves."""
    forms = {"a": ".3f", "refit_a": ".3f", "b": ".3f", "refit_b": ".4f"}
    return Table(
        "Published coefficients (arXiv 2502.13189) beside ours, by least squares through the ends "
        "of the digitised curves. C is in PFLOP/s-days; the last column is the largest distance of "
        "both lines over the compute trained, as a share of the loss.",
        columns(".Positions", ".Attention", *("#published", "#ours") * 2, "#Lines apart"),
        [
            [
                row["panel"],
                row["attention"],
                *(format(row[column], form) for column, form in forms.items()),
                percent(row["apart"], 2),
            ]
            for row in coefficients.sort_values("order", kind="stable").to_dict("records")
        ],
        groups=[("", 1), ("", 1), ("a", 2), ("b", 2), ("", 1)],
    )
