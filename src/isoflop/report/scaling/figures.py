"""The figures of a scaling study: loss against compute per range of positions, and the gaps.

After arXiv 2502.13189, figure 3 and section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from isoflop.report.figure import (
    COMPUTE_LABEL,
    SIGNED_LABEL,
    Figure,
    figure,
    inline,
    padded,
    panels,
)
from isoflop.report.theme import MUTED, Style, log_ticks

PANEL_HEIGHT = 130
"""Of a panel, pixels."""

_DASH = 4


def loss_against_compute(
    name: str,
    title: str,
    table: pd.DataFrame,
    style: Style,
    *,
    order: Sequence[str],
    axis_title: str,
    caption: str,
) -> Figure:
    """Draw training curves, final losses and projections, log-log, a panel per span.

    Args:
        name: file name of the figure.
        title: its title.
        table: as `tables.losses_against_compute` makes it.
        style: colours and shapes of the variants.
        order: the panels in order.
        axis_title: what the losses are in, and how compute is counted.
        caption: how to read the figure.
    """
    base = alt.Chart().encode(
        x=compute_axis(table["compute"].tolist()), y=loss_axis(), color=style.colour()
    )
    tooltip = [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip("panel:N", title="Losses"),
        alt.Tooltip("non_embedding:Q", title="N", format=",.0f"),
        alt.Tooltip("seed:Q", title="Seed"),
        alt.Tooltip("compute:Q", title="PFLOP/s-days", format=".3~e"),
        alt.Tooltip("loss:Q", title="Test loss", format=".4f"),
    ]
    curves = (
        base.transform_filter("datum.row === 'curve'")
        .mark_line(strokeWidth=0.8, strokeOpacity=0.45, aria=False)
        .encode(detail=["non_embedding:N", "seed:N"], order="compute:Q")
    )
    # Lines on top of one another take turns, so that each is seen.
    drawn = [name for name in style.names if name in set(table["variant"])]
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
        .encode(shape=style.shape(), tooltip=tooltip)
    )
    return panels(
        name,
        title,
        caption,
        [curves, *lines, runs],
        table,
        order=order,
        axis_title=axis_title,
        height=PANEL_HEIGHT,
    )


def gaps_by_span(
    table: pd.DataFrame,
    style: Style,
    *,
    margin: float | None,
    unit: str,
    baseline: str,
    caption: str,
) -> Figure:
    """Draw the gaps to the baseline in each span: the mean over sizes, and every size.

    Args:
        table: as `tables.gaps` makes it.
        style: colours of the variants.
        margin: difference that counts as none, shown as a band; None for none.
        unit: what losses are in.
        baseline: name of the variant that zero stands for.
        caption: how to read the figure.
    """
    marks = table.sort_values("non_embedding", na_position="first")["mark"].drop_duplicates()
    variants = [name for name in style.names if name in set(table["variant"])]
    slots = [f"{variant}|{mark}" for variant in variants for mark in marks]
    ends = [*table["low"], *table["high"], 0.0, *([margin, -margin] if margin else [])]
    y_title = f"Loss less that of {baseline}, {unit}"
    y = alt.Y(
        "difference:Q",
        title=y_title,
        scale=alt.Scale(domain=padded(ends), nice=False, zero=False),
        axis=alt.Axis(tickCount=6, labelExpr=SIGNED_LABEL),
    )
    x = alt.X(
        "span:N",
        title="Positions",
        sort=table["span"].drop_duplicates().tolist(),
        scale=alt.Scale(paddingInner=0.28, paddingOuter=0.14),
        axis=alt.Axis(
            labelAngle=alt.ExprRef("width < 520 ? -60 : 0"),
            labelAlign=alt.ExprRef("width < 520 ? 'right' : 'center'"),
            labelBaseline=alt.ExprRef("width < 520 ? 'middle' : 'top'"),
            labelOverlap=False,
            ticks=False,
            grid=False,
        ),
    )
    colour = alt.Color(
        "variant:N",
        scale=alt.Scale(domain=variants, range=[style.colour_of(name) for name in variants]),
        legend=alt.Legend(symbolOpacity=1, columns=alt.ExprRef("width < 420 ? 2 : 4")),
    )
    offset = alt.XOffset("slot:N", sort=slots, scale=alt.Scale(domain=slots))
    layers: list[alt.Chart | alt.LayerChart] = []
    reference: dict[str, Any] = {"zero": [0.0]}
    if margin:
        reference |= {"low": [-margin], "high": [margin]}
    band = alt.Chart(inline(pd.DataFrame(reference), "band"))
    if margin:
        layers.append(
            band.mark_rect(color="#e9e9e4").encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
        )
    layers.append(
        band.mark_rule(color=MUTED, strokeWidth=1).encode(y=alt.Y("zero:Q", title=y_title))
    )
    tooltip = [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip("span:N", title="Positions"),
        alt.Tooltip("mark:N", title="N"),
        alt.Tooltip("difference:Q", title="Gap", format="+.4f"),
        alt.Tooltip("low:Q", title="from", format="+.4f"),
        alt.Tooltip("high:Q", title="to", format="+.4f"),
        alt.Tooltip("outcome:N", title="Outcome"),
    ]
    base = (
        alt.Chart()
        .transform_calculate(slot="datum.variant + '|' + datum.mark")
        .encode(x=x, xOffset=offset, color=colour)
    )
    for row, stroke, size in (("size", 1.0, 12), ("mean", 3.0, 60)):
        of = base.transform_filter(f"datum.row === '{row}'")
        faint = 0.65 if row == "size" else 1.0
        layers += [
            of.mark_rule(strokeWidth=stroke, opacity=faint).encode(
                y=alt.Y("low:Q", title=y_title), y2="high:Q"
            ),
            of.mark_point(filled=True, size=size, opacity=faint).encode(y=y, tooltip=tooltip),
        ]
    return figure(
        "gaps-by-position",
        "Gaps by position",
        caption,
        layers,
        table,
        height=300,
    )


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
