"""The figure of paired measurements: times as fast as a reference, against tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from isoflop.report.theme import INK, MUTED

LENGTH_LABEL = "datum.value % 1024 ? format(datum.value, ',') : datum.value / 1024 + 'K'"
"""Vega expression that writes a tick as 8K, of 1,024 tokens each."""


def token_axis(column: str, values: Sequence[int], title: str | None = None) -> alt.X:
    """Return a logarithmic x axis with a tick for each number of tokens."""
    shown = sorted(set(values))
    return alt.X(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", base=2, domain=[shown[0] / 1.1, shown[-1] * 1.1], nice=False),
        axis=alt.Axis(values=shown, labelExpr=LENGTH_LABEL, grid=False),
    )


def ratio_axis(
    column: str, low: float, high: float, ticks: Sequence[float], title: str | None = None
) -> alt.Y:
    """Return a logarithmic y axis over a ratio, with those of the ticks that lie within it."""
    return alt.Y(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format="~g"),
    )


def speed_layers(
    base: alt.Chart,
    colour: alt.Color,
    dash: alt.StrokeDash,
    promise: tuple[str, Any],
    tooltip: Sequence[alt.Tooltip],
) -> list[alt.Chart]:
    """Return layers over axes: the reference, broad bands of what is promised, lines and points.

    `promise` is the column of the promised ratio and a filter of the rows that it is shown of.
    """
    promised, of = promise
    return [
        base.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X(), y=alt.datum(1)),
        base.transform_filter(of)
        .mark_line(strokeWidth=6, strokeOpacity=0.22)
        .encode(y=f"{promised}:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1, stroke=INK, strokeWidth=0.4).encode(
            color=colour, tooltip=list(tooltip)
        ),
    ]
