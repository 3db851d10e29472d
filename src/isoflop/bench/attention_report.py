"""How measured attention reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import altair as alt
import pandas as pd

from isoflop.bench.attention import AttentionReport, AttentionRow, crossovers
from isoflop.bench.measured import Verdict, text_table
from isoflop.bench.speed_figure import ratio_axis, speed_layers, token_axis
from isoflop.report.figure import FULL_WIDTH, Figure, figure, tooltips

FASTER_FROM = 4096
SHARE_FROM = 32768
HELD = ("forward+backward", 512, 3)
"""Direction, block size and top_k of what the bars are about."""
LEAST_SHARE = 0.6
MOST_MEMORY = 1.5

COLUMNS: Mapping[str, Callable[[AttentionRow], str]] = {
    "direction": lambda row: row.direction,
    "tokens": lambda row: f"{row.sequence_length:,}",
    "block": lambda row: str(row.block_size),
    "full s": lambda row: f"{row.full_seconds:.3g}",
    "block s": lambda row: f"{row.block_seconds:.3g}",
    "reference s": lambda row: _known(row.reference_seconds, ".3g"),
    "faster": lambda row: f"{row.time_ratio:.3g}",
    "FLOPs": lambda row: f"{row.flop_ratio:.3g}",
    "share": lambda row: f"{row.share:.0%}",
    "full MB": lambda row: _known(row.full_peak_bytes, ".0f", 1e6),
    "block MB": lambda row: _known(row.block_peak_bytes, ".0f", 1e6),
    "rounds": lambda row: str(row.rounds),
}


def describe_attention(report: AttentionReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, crossovers, bars."""
    first = report.rows[0]
    lines = [
        *report.warnings,
        f"{first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads, top_k {first.top_k}; full is torch's fused causal attention",
        *text_table(COLUMNS, report.rows, ("direction",)),
        "",
    ]
    for direction, size, since in crossovers(report.rows):
        where = (
            "not faster at the longest length measured"
            if since is None
            else f"faster from {since:,} tokens on"
        )
        lines.append(f"{direction}, blocks of {size}: {where}")
    return [*lines, *(verdict.line for verdict in attention_verdicts(report))]


def attention_verdicts(report: AttentionReport) -> tuple[Verdict, ...]:
    """Return the bars that training with blocks of 512 and top_k 3 is held to."""
    found = []
    for row in report.rows:
        if (row.direction, row.block_size, row.top_k) != HELD:
            continue
        bars = [
            (FASTER_FROM, "faster than full attention", row.time_ratio, 1.0),
            (
                FASTER_FROM,
                "full attention's memory, in block attention's",
                1 / row.memory_ratio if row.memory_ratio else None,
                1 / MOST_MEMORY,
            ),
            (SHARE_FROM, "share of the ideal", row.share, LEAST_SHARE),
        ]
        case = f"blocks of {row.block_size}, {row.sequence_length:,} tokens"
        found += [
            Verdict(claim=f"{case}: {claim}", measured=measured, expected=expected)
            for least, claim, measured, expected in bars
            if measured is not None and row.sequence_length >= least
        ]
    return tuple(found)


def attention_figure(report: AttentionReport) -> Figure:
    """Draw how many times as fast block attention is, beside what its FLOPs promise."""
    columns = ["sequence_length", "block", "direction", "time_ratio", "flop_ratio", "share"]
    table = pd.DataFrame(
        {
            **row.model_dump(),
            "block": f"blocks of {row.block_size}",
            "share": row.share,
        }
        for row in report.rows
    )[[*columns, "full_seconds", "block_seconds"]]
    low, high = 0.8 * min(table["time_ratio"]), 1.2 * max(table["flop_ratio"])
    powers = [2.0**i for i in range(-4, 11)]
    base = alt.Chart().encode(
        x=token_axis("sequence_length", list(table["sequence_length"]), "Tokens in the sequence"),
        y=ratio_axis("time_ratio", low, high, powers, "Times as fast as full attention"),
    )
    order = [f"blocks of {size}" for size in sorted({row.block_size for row in report.rows})]
    layers = speed_layers(
        base,
        alt.Color(
            "block:N", sort=order, title=None, scale=alt.Scale(scheme="viridis", domain=order)
        ),
        alt.StrokeDash(
            "direction:N",
            title=None,
            scale=alt.Scale(domain=["forward+backward", "forward"], range=[[1, 0], [2, 2]]),
        ),
        ("flop_ratio", "datum.direction === 'forward+backward'"),
        tooltips(
            ("block:N", "Block attention"),
            ("direction:N", "Direction"),
            ("sequence_length:Q", "Tokens", ","),
            ("time_ratio:Q", "Times as fast", ".2f"),
            ("flop_ratio:Q", "FLOPs promise", ".2f"),
            ("share:Q", "Share of it", ".0%"),
        ),
    )
    first = report.rows[0]
    return figure(
        f"attention-{first.dtype}-speed",
        "Block attention beside full attention",
        f"Time of torch's fused causal attention over that of block attention with top_k "
        f"{first.top_k}, {first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads. Broad bands: the ratio of their FLOPs, which is what the ratio "
        "of times would be if choosing, gathering and merging took no time.",
        layers,
        table,
        height=360,
        width=FULL_WIDTH,
    )


def _known(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)
