"""Inside a routed model: who processes what, and what it costs to decide causally.

After figures 5 and 6 of arXiv 2404.02258.
"""

from __future__ import annotations

from collections.abc import Mapping

import altair as alt
import pandas as pd

from isoflop.config import DecisionMeasures, Measures, TextSample
from isoflop.report import figure as draw
from isoflop.report.analysis import Studied
from isoflop.report.blocks import Block, Pair, Paragraph, Section, Strip, Styled, with_columns
from isoflop.report.routed import RoutedModel
from isoflop.report.theme import CHALLENGER_COLOURS
from isoflop.report.words.prose import caption
from isoflop.text import visible

DENSE, PROCESSED, SKIPPED = "dense block, all tokens", "processed", "skipped"
"""What became of a token in a block."""

MOST_TOKENS = 1500
"""Tokens of a sample that a page shows."""

_BLUE = CHALLENGER_COLOURS[0]
_STATES = {PROCESSED: _BLUE, SKIPPED: "#dfdfd8", DENSE: "#b5d2e6"}
_MOST_ROW_HEIGHT, _GRID_HEIGHT = 26, 420


def section(analysis: Studied) -> Section | None:
    """Return what is known of the routed model, or how to find out; None without one."""
    model, unit = analysis.evidence.routed, analysis.loss_unit
    if model is None:
        return None
    blocks: list[Block] = []
    missing = f"No model of {model.variant} was looked into yet"
    if model.evaluation is not None or model.sample is not None:
        record = model.record
        told = f", {caption('routed', model, record.evaluation(), unit)}"
        losses = loss_figures(model, unit)
        blocks.append(Paragraph((Styled("variant", model.variant), told)))
        blocks += [*decision_figures(model), *([Pair(losses)] if losses else [])]
        blocks += [strip(model.sample)] if model.sample else []
        missing = "What is missing here"
    if model.missing:
        asked = [part for one in model.missing for part in (" and ", Styled("code", one))][1:]
        tell = "tells" if len(model.missing) == 1 else "tell"
        asked.append(f" {tell} it; then make the report again.")
        blocks.append(draw.Absent(missing, tuple(asked)))
    return Section("Inside a routed model", blocks, anchor="inside")


def _measures(model: RoutedModel) -> tuple[Measures, DecisionMeasures] | None:
    """Return what an evaluation measured, and under the first causal decision; None without one."""
    measures = model.evaluation.measures if model.evaluation else None
    if measures is None or measures.sample is None:
        return None
    causal = [one for one in measures.decisions if one.decision != "top_k"]
    return (measures, causal[0]) if causal else None


def decision_figures(model: RoutedModel) -> list[draw.Figure]:
    """Draw decisions token by token and router weights, those that were kept."""
    found = _measures(model)
    if found is None or model.evaluation is None:
        return []
    measures, measured = found
    blocks, texts = model.record.config.model.blocks, model.evaluation.token_texts
    grid, weights = decision_grid(measures, measured, blocks, texts), router_weights(measured)
    drawn = [_grid(grid, measured)] if len(grid) else []
    return [*drawn, _weights(weights, measured)] if len(weights) else drawn


def decision_grid(
    measures: Measures, measured: DecisionMeasures, blocks: int, texts: Mapping[int, str]
) -> pd.DataFrame:
    """Return a row per routed block and token of the stretch, and one per dense block.

    Columns: `block`, `position` and `position_end`, `token`, `state`, and `top_k`: whether top-k
    selects the token. Empty where no stretch was kept.

    Args:
        measures: of the model.
        measured: those of the decision that decides.
        blocks: how many the model has.
        texts: of ids.
    """
    top_k = measures.under("top_k")
    stretch, ranked = measured.stretch, top_k.stretch if top_k else None
    if stretch is None or ranked is None:
        return pd.DataFrame()
    rows: list[tuple[object, ...]] = []
    routed = [one.block for one in measured.blocks]
    tokens = [f"'{visible(texts.get(token, ''))}'" for token in stretch.tokens]
    for block in range(blocks):
        if block not in routed:
            rows.append((block, 0, len(tokens), "", DENSE, ""))
            continue
        decided = (one.processed[routed.index(block)] for one in (stretch, ranked))
        for at, (token, taken, best) in enumerate(zip(tokens, *decided, strict=True)):
            state = PROCESSED if taken else SKIPPED
            rows.append((block, at, at + 1, token, state, "yes" if best else "no"))
    columns = ["block", "position", "position_end", "token", "state", "top_k"]
    return pd.DataFrame(rows, columns=columns)


def router_weights(measured: DecisionMeasures) -> pd.DataFrame:
    """Return a row per routed block, range of router weights and what became of the tokens.

    Columns: `panel`, `weight` and `weight_end`, `state`, `tokens`, and `share` of the block's
    tokens. Empty where no weights were kept.
    """
    rows = []
    for block in measured.blocks:
        weights = block.router_weights
        if weights is None:
            return pd.DataFrame()
        total = max(1, sum(weights.processed) + sum(weights.skipped))
        for state, counts in ((PROCESSED, weights.processed), (SKIPPED, weights.skipped)):
            for low, high, tokens in zip(weights.edges, weights.edges[1:], counts, strict=False):
                rows.append((f"Block {block.block}", low, high, state, tokens, tokens / total))
    columns = ["panel", "weight", "weight_end", "state", "tokens", "share"]
    return pd.DataFrame(rows, columns=columns)


def _grid(table: pd.DataFrame, measured: DecisionMeasures) -> draw.Figure:
    tokens, blocks = int(table["position_end"].max()), table["block"].nunique()
    x = draw.linear_axis(alt.X, "position", "Position in the window", [0, tokens], 0, grid=False)
    y = alt.Y(
        "block:O",
        title="Block",
        sort="descending",
        scale=alt.Scale(paddingInner=0.12, paddingOuter=0.06),
        axis=alt.Axis(ticks=False, domain=False, grid=False),
    )
    chart = alt.Chart().mark_rect(stroke="white", strokeWidth=0.4)
    chart = chart.encode(x=x, x2=alt.X2("position_end:Q"), y=y, color=_state(*_STATES))
    return draw.figure(
        "routing-decisions",
        "Routing decisions by token and block",
        caption("grid", tokens, measured),
        [chart.encode(tooltip=draw.told("block position token state top_k"))],
        table,
        height=min(_MOST_ROW_HEIGHT * blocks, _GRID_HEIGHT),
    )


def _weights(table: pd.DataFrame, measured: DecisionMeasures) -> draw.Figure:
    order = table["panel"].drop_duplicates().tolist()
    chart = (
        alt.Chart()
        .mark_bar(strokeWidth=0, binSpacing=0)
        .encode(
            x=alt.X("weight:Q", bin="binned", title=None, axis=alt.Axis(grid=False, tickCount=4)),
            x2=alt.X2("weight_end:Q"),
            y=alt.Y("share:Q", title=None, stack="zero", axis=alt.Axis(format="~%", tickCount=4)),
            color=_state(PROCESSED, SKIPPED),
            # Stacked from the bottom in this order.
            order=alt.Order("state:N", sort="ascending"),
            tooltip=draw.told("state weight:.3f weight_end:.3f tokens:, share:.2%"),
        )
    )
    told = caption("weights", len(table) // (2 * len(order)), measured.decision)
    layout = draw.Panels(order, "Share of tokens against router weight", height=150, same_x=False)
    return draw.panels("router-weights", "Router weights", told, [chart], table, layout)


def _state(*states: str) -> alt.Color:
    scale = alt.Scale(domain=list(states), range=[_STATES[state] for state in states])
    return alt.Color("state:N", scale=scale, legend=alt.Legend(symbolType="square"))


def loss_figures(model: RoutedModel, unit: str) -> list[draw.Figure]:
    """Draw the loss by decision, and how far it lies above that of top-k, where that is known."""
    measures = _measures(model)
    if measures is None:
        return []
    # Top-k comes last; its own difference is missing.
    decisions = sorted(measures[0].decisions, key=lambda one: one.decision == "top_k")
    table = pd.DataFrame(
        {
            "decision": one.described,
            **with_columns("loss", one.loss),
            **with_columns("difference", one.leak.nats if one.leak else None),
        }
        for one in decisions
    )
    losses = ("decision-losses", "Loss by routing decision", caption("decision_losses"))
    costs = ("decision-differences", "What deciding causally costs", caption("decision_costs"))
    above, blue = table.dropna(subset=["difference"]), alt.ColorValue(_BLUE)
    found = [draw.intervals(losses, table, ("decision", "loss", f"Test loss, {unit}"), blue)]
    if len(above):
        of = ("decision", "difference", f"Loss above that of top-k, {unit}")
        found.append(draw.intervals(costs, above, of, blue, form="+.4f", at=0.0))
    return found


def strip(sample: TextSample) -> Strip:
    """Return what a page shows of a sample."""
    cut = {"prompt": sample.prompt[-MOST_TOKENS:], "tokens": sample.tokens[:MOST_TOKENS]}
    return Strip(sample.model_copy(update=cut), caption("strip", sample, MOST_TOKENS))
