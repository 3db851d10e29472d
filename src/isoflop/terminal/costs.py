"""`isoflop costs`: parameters, FLOPs and cache bytes of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.table import Table

from isoflop.notation import count, exponent, percent
from isoflop.planning.costing import CONVENTIONS, CostRow
from isoflop.terminal.tables import shape, size, table_of

PARTS = {
    "attention_projections": "proj.",
    "attention_scores": "scores",
    "block_gate": "gate",
    "feed_forward": "feed-fwd",
    "router": "router",
    "decision_head": "decision",
    "logits": "logits",
}
"""Headings of the parts of the forward pass; the embedding is a lookup and costs nothing."""


def cost_tables(rows: Sequence[CostRow]) -> list[Table]:
    """Return sizes, FLOPs by convention and FLOPs by part of the rows' models."""
    first = rows[0]
    parts = [part for part in PARTS if any(row.forward_parts[row.convention][part] for row in rows)]
    model: dict[str, Callable[[CostRow], str]] = {"model": lambda row: row.name}
    if len({row.budget_flops for row in rows}) > 1:
        model["budget"] = lambda row: (
            "-" if row.budget_flops is None else exponent(row.budget_flops)
        )

    def flops(convention: str) -> Callable[[CostRow], str]:
        return lambda row: exponent(row.forward_flops[convention])

    def share(part: str) -> Callable[[CostRow], str]:
        return lambda row: percent(
            row.forward_parts[row.convention][part] / row.forward_flops[row.convention]
        )

    tables: dict[str, dict[str, Callable[[CostRow], str]]] = {
        "Parameters": {
            "shape": lambda row: shape(row.model),
            "total": lambda row: count(row.parameters.total),
            "non-emb.": lambda row: count(row.parameters.non_embedding),
            "active": lambda row: count(row.parameters.active),
            "cache": lambda row: size(row.cache_bytes),
        },
        f"Forward FLOPs per token at {first.sequence_length} tokens, by convention "
        "(training: three times as many)": {one: flops(one) for one in CONVENTIONS},
        f"Where they go ({first.convention})": {PARTS[part]: share(part) for part in parts},
    }
    return [
        table_of(title, rows, {**model, **cells}, names=["model"])
        for title, cells in tables.items()
    ]
