"""The four models singled out: training curves and costs per step (arXiv 2404.02258, figure 3)."""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.report.figure import HALF_WIDTH, POWER_LABEL, Figure, figure, padded
from isoflop.report.theme import INK, Style

_DASHES = ([1, 0], [6, 3])


def training_loss(
    name: str,
    title: str,
    table: pd.DataFrame,
    style: Style,
    along: tuple[str, str],
    loss_unit: str,
    caption: str,
) -> Figure:
    """Draw the training loss of the numbered models.

    Args:
        name: file name of the figure.
        title: its title.
        table: columns `number`, `model` (its label), `variant`, `seed`, `loss`, and the x axis's.
        style: colours of the variants.
        along: column of the x axis, such as `flops`, and its title.
        loss_unit: what the loss is in.
        caption: how to read the figure.
    """
    models = table.drop_duplicates("number").sort_values("number")
    labels = [str(label) for label in models["model"]]
    colours = [style.colour_of(variant) for variant in models["variant"]]
    dashes = [_DASHES[0] if number % 2 else _DASHES[1] for number in models["number"]]
    columns = alt.ExprRef(f"width < 280 ? 1 : {min(2, len(labels))}")
    legend = alt.Legend(columns=columns, symbolSize=260, symbolStrokeWidth=2, symbolType="stroke")
    column, column_title = along
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
                title=column_title,
                scale=alt.Scale(domainMin=0, nice=False),
                axis=alt.Axis(
                    grid=False, tickCount=5, labelExpr=POWER_LABEL if powers else alt.Undefined
                ),
            ),
            y=alt.Y(
                "loss:Q",
                title=f"Training loss, {loss_unit}",
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


def bars(
    name: str,
    title: str,
    table: pd.DataFrame,
    style: Style,
    value: tuple[str, str],
    caption: str,
) -> Figure:
    """Draw one number per numbered model as a bar with the number written on it.

    Args:
        name: file name of the figure.
        title: its title.
        table: columns `number`, `variant`, `parameters`, `bar` (the text below it), `label` (the
            text above it) and that of the height.
        style: colours of the variants.
        value: column of the bar's height, and its title.
        caption: how to read the figure.
    """
    column, column_title = value
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
            title=column_title,
            scale=alt.Scale(domain=[0, 1.12 * float(table[column].max())], nice=False),
            axis=alt.Axis(tickCount=5, labelExpr=POWER_LABEL if powers else alt.Undefined),
        ),
    )
    rectangles = base.mark_bar(opacity=0.9).encode(color=style.colour(legend=False))
    texts = base.mark_text(dy=-8, fontSize=12, color=INK).encode(text="label:N")
    return figure(name, title, caption, [rectangles, texts], table, height=260, width=HALF_WIDTH)
