"""Inside a routed model: who processes what, and what it costs to decide causally.

After figures 5 and 6 of arXiv 2404.02258.
"""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import pandas as pd

from isoflop.config import Measures
from isoflop.notation import percent
from isoflop.report import routed_tables
from isoflop.report.figure import (
    HALF_WIDTH,
    SIGNED_LABEL,
    Figure,
    figure,
    inline,
    padded,
    panels,
)
from isoflop.report.routed import RoutedModel
from isoflop.report.routed_tables import DENSE, PROCESSED, SKIPPED, panel_name
from isoflop.report.theme import CHALLENGER_COLOURS, INK, MUTED

_STATES = {PROCESSED: CHALLENGER_COLOURS[0], SKIPPED: "#dfdfd8", DENSE: "#b5d2e6"}
_MOST_ROW_HEIGHT, _GRID_HEIGHT = 26, 420
_ROW = 34
"""Height of one decision's interval."""


@dataclass(frozen=True)
class RoutedFigures:
    """Figures of one routed model, those that its evaluation has the numbers for."""

    decisions: tuple[Figure, ...]
    """Decisions token by token, and router weights."""
    losses: tuple[Figure, ...]
    """Loss by decision, and how far it lies above that of top-k."""

    def all(self) -> list[Figure]:
        """Return every figure."""
        return [*self.decisions, *self.losses]


def routed_figures(model: RoutedModel | None, loss_unit: str) -> RoutedFigures:
    """Return the figures of a model; none without a model, or an evaluation of it."""
    if model is None:
        return RoutedFigures((), ())
    found = model.evaluation
    if found is None or found.measures.sample is None:
        return RoutedFigures((), ())
    measures = found.measures
    if not any(one.decision != "top_k" for one in measures.decisions):
        return RoutedFigures((), ())
    grid = routed_tables.decision_grid(
        measures, model.record.config.model.blocks, found.token_texts
    )
    weights = routed_tables.router_weights(measures)
    return RoutedFigures(
        decisions=(
            *((_grid(grid, measures),) if len(grid) else ()),
            *((_weights(weights, measures),) if len(weights) else ()),
        ),
        losses=_losses(routed_tables.decision_losses(measures), loss_unit),
    )


def _grid(table: pd.DataFrame, measures: Measures) -> Figure:
    measured = routed_tables.headline(measures)
    tokens, blocks = int(table["position_end"].max()), table["block"].nunique()
    agreed = [one.agreement.accuracy for one in measured.blocks if one.agreement is not None]
    shares = ", ".join(
        f"{percent(one.realised_capacity)} in block {one.block}" for one in measured.blocks
    )
    caption = (
        f"The first {tokens} tokens of a test window: which blocks process them, the first block "
        f"at the bottom, under {measured.decision}. Over all whole windows it processes {shares}"
    )
    if agreed:
        caption += f", and decides as top-k does for {percent(min(agreed))} or more of the tokens"
    chart = (
        alt.Chart()
        .mark_rect(stroke="white", strokeWidth=0.4)
        .encode(
            x=alt.X(
                "position:Q",
                title="Position in the window",
                scale=alt.Scale(domain=[0, tokens], nice=False),
                axis=alt.Axis(grid=False),
            ),
            x2="position_end:Q",
            y=alt.Y(
                "block:O",
                title="Block",
                sort="descending",
                scale=alt.Scale(paddingInner=0.12, paddingOuter=0.06),
                axis=alt.Axis(ticks=False, domain=False, grid=False),
            ),
            color=alt.Color(
                "state:N", scale=_scale(*_STATES), legend=alt.Legend(symbolType="square")
            ),
            tooltip=[
                alt.Tooltip("block:O", title="Block"),
                alt.Tooltip("position:Q", title="Position"),
                alt.Tooltip("token:N", title="Token"),
                alt.Tooltip("state:N", title="Here"),
                alt.Tooltip("top_k:N", title="In the top k"),
            ],
        )
    )
    return figure(
        "routing-decisions",
        "Routing decisions by token and block",
        caption + ".",
        [chart],
        table,
        height=min(_MOST_ROW_HEIGHT * blocks, _GRID_HEIGHT),
    )


def _weights(table: pd.DataFrame, measures: Measures) -> Figure:
    measured = routed_tables.headline(measures)
    order = [panel_name(one.block) for one in measured.blocks]
    chart = (
        alt.Chart()
        .mark_bar(strokeWidth=0, binSpacing=0)
        .encode(
            x=alt.X("weight:Q", bin="binned", title=None, axis=alt.Axis(grid=False, tickCount=4)),
            x2="weight_end:Q",
            y=alt.Y("share:Q", title=None, stack="zero", axis=alt.Axis(format="~%", tickCount=4)),
            color=alt.Color(
                "state:N",
                scale=_scale(PROCESSED, SKIPPED),
                legend=alt.Legend(symbolType="square"),
            ),
            # Stacked from the bottom in this order.
            order=alt.Order("state:N", sort="ascending"),
            tooltip=[
                alt.Tooltip("state:N", title="Tokens"),
                alt.Tooltip("weight:Q", title="Weight from", format=".3f"),
                alt.Tooltip("weight_end:Q", title="to", format=".3f"),
                alt.Tooltip("tokens:Q", title="Number", format=","),
                alt.Tooltip("share:Q", title="Share of tokens", format=".2%"),
            ],
        )
    )
    caption = (
        "Router weights r, which rank the tokens under top-k and multiply a block's update: the "
        f"share of tokens in each of {len(table) // (2 * len(order))} equal ranges, by "
        f"what {measured.decision} makes of them. The outermost ranges hold what lies beyond."
    )
    return panels(
        "router-weights",
        "Router weights",
        caption,
        [chart],
        table,
        order=order,
        axis_title="Share of tokens against router weight",
        height=150,
        same_x=False,
    )


def _scale(*states: str) -> alt.Scale:
    return alt.Scale(domain=list(states), range=[_STATES[state] for state in states])


def _losses(table: pd.DataFrame, loss_unit: str) -> tuple[Figure, ...]:
    losses = _intervals(
        "decision-losses",
        "Loss by routing decision",
        table,
        "loss",
        f"Test loss, {loss_unit}",
        "Test loss of the same weights under each decision, with the 95% interval that other "
        "documents would give. These are the same documents for each, so overlapping intervals "
        "do not make decisions equal; the paired differences tell.",
    )
    above = table.dropna(subset=["difference"])
    if above.empty:
        return (losses,)
    differences = _intervals(
        "decision-differences",
        "What deciding causally costs",
        above,
        "difference",
        f"Loss above that of top-k, {loss_unit}",
        "Loss less that of top-k, which looks ahead, paired by document, with 95% intervals.",
        reference=0.0,
    )
    return losses, differences


def _intervals(
    name: str,
    title: str,
    table: pd.DataFrame,
    column: str,
    axis: str,
    caption: str,
    reference: float | None = None,
) -> Figure:
    """Draw a value with its interval for each decision."""
    low, high = f"{column}_low", f"{column}_high"
    values = table[[column, low, high]].astype("float64").to_numpy().ravel().tolist()
    seen = [value for value in values if value == value]
    x = alt.X(
        f"{column}:Q",
        title=axis,
        scale=alt.Scale(
            domain=padded([*seen, *([] if reference is None else [reference])]),
            nice=False,
            zero=False,
        ),
        axis=alt.Axis(tickCount=4, labelExpr=alt.Undefined if reference is None else SIGNED_LABEL),
    )
    base = alt.Chart().encode(
        y=alt.Y(
            "decision:N",
            title=None,
            sort=table["decision"].tolist(),
            axis=alt.Axis(ticks=False, domain=False, grid=False, labelLimit=110),
        )
    )
    ends = (
        base.transform_filter(f"isValid(datum.{low})")
        .mark_rule(strokeWidth=2.2, color=CHALLENGER_COLOURS[0], strokeOpacity=0.7)
        .encode(x=alt.X(f"{low}:Q", title=axis, scale=alt.Scale(zero=False)), x2=f"{high}:Q")
    )
    points = base.mark_point(filled=True, size=80, opacity=1, color=CHALLENGER_COLOURS[0]).encode(
        x=x,
        tooltip=[
            alt.Tooltip("decision:N", title="Decision"),
            alt.Tooltip(f"{column}:Q", title=axis, format=".4f"),
            alt.Tooltip(f"{low}:Q", title="from", format=".4f"),
            alt.Tooltip(f"{high}:Q", title="to", format=".4f"),
        ],
    )
    numbers = base.mark_text(dy=-11, fontSize=10.5, color=INK).encode(
        x=x, text=alt.Text(f"{column}:Q", format=".4f" if reference is None else "+.4f")
    )
    layers = [ends, points, numbers]
    if reference is not None:
        middle = alt.Chart(inline(pd.DataFrame({"middle": [reference]}), "reference"))
        rule = middle.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X("middle:Q", title=axis))
        layers = [rule, *layers]
    return figure(
        name, title, caption, layers, table, height=_ROW * (len(table) + 1), width=HALF_WIDTH
    )
