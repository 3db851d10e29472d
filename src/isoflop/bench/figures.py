"""The figure of measured attention: times as fast as full attention, against tokens."""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.bench.attention import AttentionReport
from isoflop.report.figure import Figure, figure, log_axis, rule, told
from isoflop.report.theme import INK

LENGTH_LABEL = "datum.value % 1024 ? format(datum.value, ',') : datum.value / 1024 + 'K'"
"""Vega expression that writes a tick as 8K, of 1,024 tokens each."""


def attention_figure(report: AttentionReport) -> Figure:
    """Draw how many times as fast block attention is, beside what its FLOPs promise."""
    columns = ["sequence_length", "block", "direction", "time_ratio", "flop_ratio", "share"]
    table = pd.DataFrame(
        {**row.model_dump(), "block": f"blocks of {row.block_size}", "share": row.share}
        for row in report.rows
    )[[*columns, "full_seconds", "block_seconds"]]
    low, high = 0.8 * min(table["time_ratio"]), 1.2 * max(table["flop_ratio"])
    lengths = sorted(set(table["sequence_length"].tolist()))
    y_title = "Times as fast as full attention"
    ticks = [2.0**i for i in range(-4, 11) if low <= 2.0**i <= high]
    base = alt.Chart().encode(
        x=log_axis(
            "sequence_length",
            "Tokens in the sequence",
            lengths,
            margin=1.1,
            ticks=lengths,
            labelExpr=LENGTH_LABEL,
        ),
        y=alt.Y(
            "time_ratio:Q",
            title=y_title,
            scale=alt.Scale(type="log", domain=[low, high], nice=False),
            axis=alt.Axis(values=ticks, format="~g"),
        ),
    )
    order = [f"blocks of {size}" for size in sorted({row.block_size for row in report.rows})]
    shades = alt.Scale(scheme="viridis", domain=order)
    colour = alt.Color("block:N", sort=order, title=None, scale=shades)
    dashes = alt.Scale(domain=["forward+backward", "forward"], range=[[1, 0], [2, 2]])
    tooltip = told("block direction sequence_length:, time_ratio:.2f flop_ratio:.2f share:.0%")
    layers = [
        rule(1.0, y=y_title),
        base.transform_filter("datum.direction === 'forward+backward'")
        .mark_line(strokeWidth=6, strokeOpacity=0.22)
        .encode(y="flop_ratio:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(
            color=colour, strokeDash=alt.StrokeDash("direction:N", title=None, scale=dashes)
        ),
        base.mark_point(filled=True, size=45, opacity=1, stroke=INK, strokeWidth=0.4).encode(
            color=colour, tooltip=tooltip
        ),
    ]
    first = report.rows[0]
    return figure(
        f"attention-{first.dtype}-speed",
        "Block attention beside full attention",
        f"Time of torch's fused causal attention over that of block attention with top_k "
        f"{first.top_k}, {first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads. Broad bands: the ratio of their FLOPs, which is what the ratio "
        "of times would be if choosing, gathering and merging took no time.",
        layers,
        table,
        height=360,
    )
