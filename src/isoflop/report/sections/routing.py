"""Inside a routed model: who processes what, and what it costs to decide causally.

After figures 5 and 6 of arXiv 2404.02258.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from isoflop.config import DecisionMeasures, Measures
from isoflop.notation import count, percent
from isoflop.report.analysis import Studied
from isoflop.report.blocks import Block, Note, Pair, Paragraph, Section, Styled
from isoflop.report.figure import (
    HALF_WIDTH,
    SIGNED_LABEL,
    Figure,
    Panels,
    figure,
    padded,
    panels,
    rule,
    tooltips,
)
from isoflop.report.routed import CHOICE, RoutedModel
from isoflop.report.sections.generated_text import strip
from isoflop.report.theme import CHALLENGER_COLOURS, INK
from isoflop.text import visible

DENSE, PROCESSED, SKIPPED = "dense block, all tokens", "processed", "skipped"
"""What became of a token in a block."""

_STATES = {PROCESSED: CHALLENGER_COLOURS[0], SKIPPED: "#dfdfd8", DENSE: "#b5d2e6"}
_MOST_ROW_HEIGHT, _GRID_HEIGHT = 26, 420
_ROW = 34
"""Height of one decision's interval."""


def section(analysis: Studied) -> Section | None:
    """Return what is known of the routed model, or how to find out; None without one."""
    model = analysis.evidence.routed
    if model is None:
        return None
    blocks: list[Block] = []
    known = model.evaluation is not None or model.sample is not None
    if known:
        decisions, losses = decision_figures(model), loss_figures(model, analysis.loss_unit)
        blocks += [_introduced(model, analysis.loss_unit), *decisions]
        blocks += [Pair(losses)] if losses else []
        blocks += [strip(model.sample)] if model.sample else []
    if model.missing:
        title = f"No model of {model.variant} was looked into yet"
        first, *others = [Styled("code", command) for command in model.missing]
        tell = " tell" if others else " tells"
        joined = (first, *(part for one in others for part in (" and ", one)))
        asked = (*joined, f"{tell} it; then make the report again.")
        blocks.append(Note("What is missing here" if known else title, asked))
    return Section("Inside a routed model", blocks, anchor="inside")


def _introduced(model: RoutedModel, unit: str) -> Paragraph:
    record, config = model.record, model.record.config.model
    evaluation = record.evaluation()
    loss = "" if evaluation is None else f", test loss {evaluation.loss:.4f} {unit}"
    told = (
        f", {config.blocks} blocks of width {config.width}, "
        f"{count(record.parameters.total)} parameters, run {record.run_id}{loss}. {CHOICE}"
    )
    return Paragraph((Styled("variant", model.variant), told))


def _measures(model: RoutedModel) -> Measures | None:
    """Return what an evaluation measured; None without one that has a causal decision."""
    measures = None if model.evaluation is None else model.evaluation.measures
    if measures is None or measures.sample is None:
        return None
    causal = any(one.decision != "top_k" for one in measures.decisions)
    return measures if causal else None


def decision_figures(model: RoutedModel) -> list[Figure]:
    """Draw decisions token by token and router weights, those that were kept."""
    measures = _measures(model)
    if measures is None or model.evaluation is None:
        return []
    blocks, texts = model.record.config.model.blocks, model.evaluation.token_texts
    grid, weights = decision_grid(measures, blocks, texts), router_weights(measures)
    found = [_grid(grid, measures)] if len(grid) else []
    return [*found, _weights(weights, measures)] if len(weights) else found


def loss_figures(model: RoutedModel, unit: str) -> list[Figure]:
    """Draw the loss by decision, and how far it lies above that of top-k, where that is known."""
    measures = _measures(model)
    if measures is None:
        return []
    table = decision_losses(measures)
    losses = _intervals(
        "decision-losses",
        "Loss by routing decision",
        table,
        f"Test loss, {unit}",
        "Test loss of the same weights under each decision, with the 95% interval that other "
        "documents would give. These are the same documents for each, so overlapping intervals "
        "do not make decisions equal; the paired differences tell.",
    )
    above = table.dropna(subset=["difference"])
    if above.empty:
        return [losses]
    differences = _intervals(
        "decision-differences",
        "What deciding causally costs",
        above,
        f"Loss above that of top-k, {unit}",
        "Loss less that of top-k, which looks ahead, paired by document, with 95% intervals.",
    )
    return [losses, differences]


def headline(measures: Measures) -> DecisionMeasures:
    """Return the measures under the first causal decision."""
    return next(one for one in measures.decisions if one.decision != "top_k")


def decision_grid(measures: Measures, blocks: int, texts: Mapping[int, str]) -> pd.DataFrame:
    """Return a row per routed block and token of the stretch, and one per dense block.

    Args:
        measures: of the model; the headline decision decides.
        blocks: how many the model has.
        texts: of ids.

    Returns:
        Columns `block`, `position` and `position_end`, `token`, `state`, and `top_k`: whether
        top-k selects the token. Empty where no stretch was kept.
    """
    measured = headline(measures)
    stretch, top_k = measured.stretch, measures.under("top_k")
    if stretch is None or top_k is None or top_k.stretch is None:
        return pd.DataFrame()
    routed = {one.block: index for index, one in enumerate(measured.blocks)}
    rows: list[dict[str, object]] = []
    for block in range(blocks):
        if block not in routed:
            whole = {"block": block, "position": 0, "position_end": len(stretch.tokens)}
            rows.append({**whole, "token": "", "state": DENSE, "top_k": ""})
            continue
        taken, best = (one.processed[routed[block]] for one in (stretch, top_k.stretch))
        for position, (token, goes, ranked) in enumerate(
            zip(stretch.tokens, taken, best, strict=True)
        ):
            rows.append(
                {
                    "block": block,
                    "position": position,
                    "position_end": position + 1,
                    "token": f"'{visible(texts.get(token, ''))}'",
                    "state": PROCESSED if goes else SKIPPED,
                    "top_k": "yes" if ranked else "no",
                }
            )
    return pd.DataFrame(rows)


def router_weights(measures: Measures) -> pd.DataFrame:
    """Return a row per routed block, range of router weights and what became of the tokens.

    Returns:
        Columns `panel`, `weight` and `weight_end`, `state`, `tokens`, and `share` of the block's
        tokens. Empty where no weights were kept.
    """
    rows = []
    for block in headline(measures).blocks:
        weights = block.router_weights
        if weights is None:
            return pd.DataFrame()
        total = sum(weights.processed) + sum(weights.skipped)
        for state, counts in ((PROCESSED, weights.processed), (SKIPPED, weights.skipped)):
            for low, high, tokens in zip(weights.edges, weights.edges[1:], counts, strict=False):
                rows.append(
                    {
                        "panel": panel_name(block.block),
                        "weight": low,
                        "weight_end": high,
                        "state": state,
                        "tokens": tokens,
                        "share": tokens / max(1, total),
                    }
                )
    return pd.DataFrame(rows)


def panel_name(block: int) -> str:
    """Return what the panel of a block is called."""
    return f"Block {block}"


def decision_losses(measures: Measures) -> pd.DataFrame:
    """Return a row per decision, top-k last: its loss, and how far it lies above that of top-k.

    Returns:
        Columns `decision`, `loss`, `difference`, each with its ends in `_low` and `_high`.
    """
    rows = []
    for one in sorted(measures.decisions, key=lambda one: one.decision == "top_k"):
        above = None if one.leak is None else one.leak.nats
        rows.append(
            {
                "decision": one.described,
                "loss": one.loss.value,
                "loss_low": one.loss.low,
                "loss_high": one.loss.high,
                "difference": None if above is None else above.value,
                "difference_low": None if above is None else above.low,
                "difference_high": None if above is None else above.high,
            }
        )
    return pd.DataFrame(rows)


def _grid(table: pd.DataFrame, measures: Measures) -> Figure:
    measured = headline(measures)
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
            tooltip=tooltips(
                ("block:O", "Block"),
                ("position:Q", "Position"),
                ("token:N", "Token"),
                ("state:N", "Here"),
                ("top_k:N", "In the top k"),
            ),
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
    measured = headline(measures)
    order = [panel_name(one.block) for one in measured.blocks]
    chart = (
        alt.Chart()
        .mark_bar(strokeWidth=0, binSpacing=0)
        .encode(
            x=alt.X("weight:Q", bin="binned", title=None, axis=alt.Axis(grid=False, tickCount=4)),
            x2="weight_end:Q",
            y=alt.Y("share:Q", title=None, stack="zero", axis=alt.Axis(format="~%", tickCount=4)),
            color=alt.Color(
                "state:N", scale=_scale(PROCESSED, SKIPPED), legend=alt.Legend(symbolType="square")
            ),
            # Stacked from the bottom in this order.
            order=alt.Order("state:N", sort="ascending"),
            tooltip=tooltips(
                ("state:N", "Tokens"),
                ("weight:Q", "Weight from", ".3f"),
                ("weight_end:Q", "to", ".3f"),
                ("tokens:Q", "Number", ","),
                ("share:Q", "Share of tokens", ".2%"),
            ),
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
        Panels(order, "Share of tokens against router weight", height=150, same_x=False),
    )


def _scale(*states: str) -> alt.Scale:
    return alt.Scale(domain=list(states), range=[_STATES[state] for state in states])


def _intervals(name: str, title: str, table: pd.DataFrame, axis: str, caption: str) -> Figure:
    """Draw a value with its interval for each decision; differences with a line at zero."""
    differences = name == "decision-differences"
    column = "difference" if differences else "loss"
    low, high = f"{column}_low", f"{column}_high"
    values = table[[column, low, high]].astype("float64").to_numpy().ravel().tolist()
    seen = [value for value in values if value == value]
    x = alt.X(
        f"{column}:Q",
        title=axis,
        scale=alt.Scale(
            domain=padded([*seen, 0.0] if differences else seen), nice=False, zero=False
        ),
        axis=alt.Axis(tickCount=4, labelExpr=SIGNED_LABEL if differences else alt.Undefined),
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
        tooltip=tooltips(
            ("decision:N", "Decision"),
            (f"{column}:Q", axis, ".4f"),
            (f"{low}:Q", "from", ".4f"),
            (f"{high}:Q", "to", ".4f"),
        ),
    )
    numbers = base.mark_text(dy=-11, fontSize=10.5, color=INK).encode(
        x=x, text=alt.Text(f"{column}:Q", format="+.4f" if differences else ".4f")
    )
    layers = [ends, points, numbers]
    if differences:
        layers = [rule(0.0, x=axis), *layers]
    return figure(
        name, title, caption, layers, table, height=_ROW * (len(table) + 1), width=HALF_WIDTH
    )
