"""What the figures of a routed model show: decisions, router weights, loss by decision."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from isoflop.config import DecisionMeasures, Measures
from isoflop.text import visible

DENSE, PROCESSED, SKIPPED = "dense block, all tokens", "processed", "skipped"
"""What became of a token in a block."""


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
