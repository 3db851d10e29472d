"""The published curves and fits of loss against compute (arXiv 2502.13189, figure 3), and ours."""

from __future__ import annotations

import math
from functools import cache

import altair as alt
import pandas as pd

from isoflop.config import BlockAttention
from isoflop.notation import percent
from isoflop.papers.moba import ATTENTIONS, published_scaling
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.sections.scaling.compute import (
    BEYOND,
    HEADROOM,
    PANEL_HEIGHT,
    compute_axis,
    loss_axis,
)
from isoflop.report.theme import BASELINE_COLOUR, CHALLENGER_COLOURS
from isoflop.report.words.prose import caption

POINTS = 24
"""Points of a published curve that a panel draws at most."""

KINDS = {
    "curve": ("digitised curves", [1, 0]),
    "published": ("published fits", [6, 3]),
    "refit": ("our fits to these curves", [1.5, 2]),
}
"""What the lines of the figure are, and their dashes."""

LINE_COLUMNS = ["panel", "order", "attention", "curve", "compute", "loss", "kind", "kind_words"]


def section(analysis: ScalingAnalysis) -> blocks.Section | None:
    """Return the published figure and coefficients; None without block attention to compare."""
    if not any(isinstance(one.attention, BlockAttention) for one in analysis.study.variants):
        return None
    return blocks.Section("Beside the published figure", _blocks())


@cache
def _blocks() -> tuple[draw.Figure, blocks.Table]:
    """Return what no study changes."""
    return figure(), table()


def published_lines() -> pd.DataFrame:
    """Return the curves, thinned, and both fits, without what is off a panel's scale.

    Columns: `panel`, `order` (of the panels), `attention`, `curve` (its number, -1 for fits),
    `compute` (PFLOP/s-days), `loss`, `kind` (one of `KINDS`), `kind_words`.
    """
    points, lines = published_scaling()
    fits = pd.DataFrame(
        {**one, "kind": kind, "curve": -1, "compute": c, "loss": round(one[a] * c ** one[b], 5)}
        for one in lines.to_dict("records")
        for kind, a, b in (("published", "a", "b"), ("refit", "refit_a", "refit_b"))
        for c in (one["first"], BEYOND * one["last"])
    )
    kept: list[pd.DataFrame] = []
    for order, curves in points.assign(kind="curve").groupby("order"):
        each = ["attention", "curve"]
        finals = curves.groupby(each)["loss"].last()
        top = finals.max() + 2 * HEADROOM * (finals.max() - finals.min())
        for _, own in curves[curves["loss"] <= top].groupby(each):
            # Counted from the end, so that the last point stays.
            kept.append(own.iloc[:: -math.ceil(len(own) / POINTS)].iloc[::-1])
        kept.append(fits[(fits["order"] == order) & (fits["loss"] <= top)])
    shown = pd.concat(kept, ignore_index=True)
    words = {kind: told for kind, (told, _) in KINDS.items()}
    return shown.assign(kind_words=shown["kind"].map(words))[LINE_COLUMNS]


def figure() -> draw.Figure:
    """Draw the published curves with both fits, a panel per published range."""
    table = published_lines()
    words, dashes = zip(*KINDS.values(), strict=True)
    attentions = list(ATTENTIONS.values())[::-1]
    base = alt.Chart().encode(
        x=compute_axis(table["compute"].tolist()),
        y=loss_axis(),
        color=alt.Color(
            "attention:N",
            scale=alt.Scale(domain=attentions, range=[BASELINE_COLOUR, CHALLENGER_COLOURS[0]]),
            legend=alt.Legend(symbolOpacity=1, symbolStrokeWidth=2, symbolType="stroke"),
        ),
        strokeDash=alt.StrokeDash(
            "kind_words:N",
            scale=alt.Scale(domain=list(words), range=list(dashes)),
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
    curves = base.transform_filter("datum.kind === 'curve'").mark_line(
        strokeWidth=0.8, strokeOpacity=0.5, aria=False
    )
    fits = base.transform_filter("datum.kind !== 'curve'").mark_line(strokeWidth=1.6)
    axes = "Published: loss, nats per token, against PFLOP/s-days by 6 N D"
    return draw.panels(
        "published-losses",
        "Published, not trained here: loss against compute, full attention and block attention",
        caption("published", published_scaling()[1]["apart"]),
        [curves, fits],
        table,
        draw.Panels(table["panel"].drop_duplicates().tolist(), axes, PANEL_HEIGHT),
    )


def table() -> blocks.Table:
    """Return the published coefficients beside ours from the same curves."""
    return blocks.table(
        caption("published_table"),
        [
            {
                ".Positions": row["panel"],
                ".Attention": row["attention"],
                "a|#published": f"{row['a']:.3f}",
                "a|#ours": f"{row['refit_a']:.3f}",
                "b|#published": f"{row['b']:.3f}",
                "b|#ours": f"{row['refit_b']:.4f}",
                "#Lines apart": percent(row["apart"], 2),
            }
            for row in published_scaling()[1].to_dict("records")
        ],
    )
