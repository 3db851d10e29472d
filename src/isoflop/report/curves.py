"""Loss against parameters: one U-curve per variant and budget (arXiv 2404.02258, figures 3, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

from isoflop.notation import exponent
from isoflop.report.figure import Figure, count_axis, figure, inline, padded
from isoflop.report.theme import INK, MUTED, Style, fading

_BRACKET_GAP = 10
_BRACKET_STEP = 58
_THINNEST = 0.02
_LABEL_HEIGHT = 0.08
"""Shares of the range of losses: the least height of a bracket, the height of its label."""


def loss_against_parameters(
    table: pd.DataFrame, style: Style, loss_title: str, caption: str
) -> Figure:
    """Draw the U-curves.

    Args:
        table: columns `row` (run, off_ladder, mean, minimum, refused), `variant`, `budget_flops`,
            `parameters`, `loss` (nats), `seed`, `low` and `high` (ends of intervals).
        style: colours and shapes of the variants.
        loss_title: title of the loss axis.
        caption: how to read the figure and which minima were refused.
    """
    x = count_axis("parameters", "Parameters", list(table["parameters"]))
    y = alt.Y(
        "loss:Q",
        title=loss_title,
        scale=alt.Scale(domain=padded(list(table["loss"])), nice=False, zero=False),
        axis=alt.Axis(tickCount=7),
    )
    tooltip = [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip("row:N", title="Point"),
        alt.Tooltip("budget_flops:Q", title="Budget, FLOPs", format="~e"),
        alt.Tooltip("parameters:Q", title="Parameters", format=",.0f"),
        alt.Tooltip("loss:Q", title="Loss", format=".4f"),
        alt.Tooltip("low:Q", title="95% from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
        alt.Tooltip("seed:Q", title="Seed"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    lines = (
        base.transform_filter("datum.row === 'mean'")
        .mark_line(strokeWidth=1.5, strokeOpacity=0.85)
        .encode(color=style.colour(), detail="budget_flops:N", opacity=fading())
    )
    runs = (
        base.transform_filter("datum.row === 'run'")
        .mark_point(filled=True, size=26, fillOpacity=0.5)
        .encode(color=style.colour(), shape=style.shape(), tooltip=tooltip, opacity=fading())
    )
    off_ladder = (
        base.transform_filter("datum.row === 'off_ladder'")
        .mark_point(filled=False, size=30, strokeWidth=1.2)
        .encode(color=style.colour(), shape=style.shape(), tooltip=tooltip, opacity=fading(0.7))
    )
    between = base.transform_filter("isValid(datum.low)").encode(
        y="low:Q", y2="high:Q", opacity=fading()
    )
    mean_bars = between.transform_filter("datum.row === 'mean'").mark_rule(
        strokeWidth=1, strokeOpacity=0.55, clip=True
    )
    minimum_bars = between.transform_filter("datum.row === 'minimum'").mark_rule(
        strokeWidth=2.4, color=INK, clip=True
    )
    bars = [mean_bars.encode(color=style.colour()), minimum_bars]
    minima = (
        base.transform_filter("datum.row === 'minimum'")
        .mark_point(filled=True, size=95, stroke=INK, strokeWidth=1.4)
        .encode(fill=style.fill(), shape=style.shape(), tooltip=tooltip, opacity=fading())
    )
    refused = (
        base.transform_filter("datum.row === 'refused'")
        .mark_text(text="\N{MULTIPLICATION SIGN}", fontSize=20, fontWeight="bold")
        .encode(color=style.colour(), tooltip=tooltip, opacity=fading())
    )
    return figure(
        "loss-against-parameters",
        "Loss against parameters",
        caption,
        [lines, runs, off_ladder, *bars, minima, refused, *_brackets(table, loss_title)],
        table,
        height=400,
        pickable=True,
    )


@dataclass(frozen=True)
class _Bracket:
    label: str
    low: float
    high: float

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


def _brackets(table: pd.DataFrame, title: str) -> list[alt.Chart]:
    """Label each budget with a bracket at the right, over the ends of its curves."""
    means = table[table["row"] == "mean"]
    height = float(table["loss"].max() - table["loss"].min())
    brackets = []
    for budget in means["budget_flops"].unique().tolist():
        of_budget = means[means["budget_flops"] == budget].sort_values("parameters")
        ends = of_budget.groupby("variant")["loss"].last()
        low, high = float(ends.min()), float(ends.max())
        room = max(0.0, (_THINNEST * height - (high - low)) / 2)
        brackets.append(_Bracket(f"{exponent(budget)}\nFLOPs", low - room, high + room))
    layers = []
    for column, members in enumerate(_columns(brackets, _LABEL_HEIGHT * height / 2)):
        data = inline(
            pd.DataFrame(
                {"label": one.label, "loss": one.low, "high": one.high, "middle": one.middle}
                for one in members
            ),
            f"brackets-{column}",
        )
        layers += _column(alt.Chart(data), _BRACKET_GAP + column * _BRACKET_STEP, title)
    return layers


def _column(base: alt.Chart, offset: int, title: str) -> list[alt.Chart]:
    """Draw brackets `offset` pixels to the right of the plot."""
    edge = alt.value("width")
    spine = base.mark_rule(color=MUTED, xOffset=offset).encode(
        x=edge, y=alt.Y("loss:Q", title=title), y2="high:Q"
    )
    ends = [
        base.mark_rule(color=MUTED, xOffset=offset - 5, x2Offset=offset).encode(
            x=edge, x2=edge, y=alt.Y(f"{end}:Q", title=title)
        )
        for end in ("loss", "high")
    ]
    label = base.mark_text(
        color=INK,
        align="left",
        baseline="middle",
        fontSize=11,
        lineBreak="\n",
        xOffset=offset + 6,
        dy=-6,
    ).encode(x=edge, y=alt.Y("middle:Q", title=title), text="label:N")
    return [spine, *ends, label]


def _columns(brackets: Sequence[_Bracket], half_label: float) -> list[list[_Bracket]]:
    """Spread brackets over as few columns as keep them and their labels apart."""
    columns: list[list[_Bracket]] = []
    for one in sorted(brackets, key=lambda one: one.low):
        bottom = min(one.low, one.middle - half_label)
        for column in columns:
            if bottom > max(column[-1].high, column[-1].middle + half_label):
                column.append(one)
                break
        else:
            columns.append([one])
    return columns
