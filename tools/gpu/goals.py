"""What is aimed at on one H100, beside what `measure.py` measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def goals(found: dict[str, dict[str, Any]]) -> Iterator[tuple[str, float, float | None]]:
    """What is aimed at, the goal, and what was measured; more is better."""
    rows = {
        (row["variant"], round(row["parameters"] / 1e8)): row
        for row in found.get("train", {}).get("rows", [])
    }
    dense, mod = rows.get(("dense", 3)), rows.get(("MoD 12.5%", 3))
    yield (
        "dense step at 300M, share of the best product",
        0.45,
        dense and dense["achieved_flops"] / dense["best_product"],
    )
    ratio = None
    if dense and mod:
        cheaper = dense["forward_flops_per_token"] / mod["forward_flops_per_token"]
        ratio = mod["tokens_per_second"] / dense["tokens_per_second"] / cheaper
    yield "MoD step at 300M, share of the inverse FLOP ratio", 0.95, ratio
    speeds = {
        row["length"]: row.get("times_as_fast")
        for row in found.get("attention", {}).get("rows", [])
    }
    for length, goal in ((16_384, 1.9), (32_768, 3.4), (65_536, 5.5), (131_072, 9.0)):
        yield f"block attention over full at {length:,}", goal, speeds.get(length)
    held = None
    for row in found.get("memory", {}).get("rows", [])[:1]:
        held = row["peak_bytes"] and 1 - abs(row["estimated_bytes"] / row["peak_bytes"] - 1)
    yield "memory of a 3B step, 1 less the estimate's error", 0.85, held


def table(found: dict[str, dict[str, Any]]) -> str:
    """The goals in lines of text."""
    lines = [f"{'goal':52} {'aim':>8} {'measured':>9} {'ratio':>6}"]
    for what, goal, measured in goals(found):
        told = "        -      -" if measured is None else f"{measured:9.3g} {measured / goal:6.2f}"
        lines.append(f"{what:52} {goal:8.3g} {told}")
    return "\n".join(lines)
