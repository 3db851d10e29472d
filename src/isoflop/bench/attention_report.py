"""How measured attention reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import pandas as pd

from isoflop.bench.attention import AttentionReport, AttentionRow, crossovers
from isoflop.bench.measured import Verdict, text_table
from isoflop.bench.speed_figure import ratio_axis, speed_layers, token_axis
from isoflop.report.figure import FULL_WIDTH, Figure, figure

FASTER_FROM = 4096
SHARE_FROM = 32768
BAR_BLOCK_SIZE, BAR_TOP_K = 512, 3
LEAST_SHARE = 0.6
MOST_MEMORY = 1.5

HEAD = (
    *("direction", "tokens", "block", "full s", "block s", "reference s", "faster", "FLOPs"),
    *("share", "full MB", "block MB", "rounds"),
)


def describe_attention(report: AttentionReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, crossovers, bars."""
    first = report.rows[0]
    lines = [
        *report.warnings,
        f"{first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads, top_k {first.top_k}; full is torch's fused causal attention",
        *text_table(HEAD, [_cells(row) for row in report.rows]),
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
    held = ("forward+backward", BAR_BLOCK_SIZE, BAR_TOP_K)
    return tuple(
        verdict
        for row in report.rows
        if (row.direction, row.block_size, row.top_k) == held
        for verdict in _held_to(row)
    )


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
        [
            alt.Tooltip("block:N", title="Block attention"),
            alt.Tooltip("direction:N", title="Direction"),
            alt.Tooltip("sequence_length:Q", title="Tokens", format=","),
            alt.Tooltip("time_ratio:Q", title="Times as fast", format=".2f"),
            alt.Tooltip("flop_ratio:Q", title="FLOPs promise", format=".2f"),
            alt.Tooltip("share:Q", title="Share of it", format=".0%"),
        ],
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


def _held_to(row: AttentionRow) -> Iterator[Verdict]:
    case = f"blocks of {row.block_size}, {row.sequence_length:,} tokens"
    if row.sequence_length >= FASTER_FROM:
        claim = f"{case}: faster than full attention"
        yield Verdict(claim=claim, measured=row.time_ratio, expected=1.0)
        if row.memory_ratio is not None:
            claim = f"{case}: full attention's memory, in block attention's"
            yield Verdict(claim=claim, measured=1 / row.memory_ratio, expected=1 / MOST_MEMORY)
    if row.sequence_length >= SHARE_FROM:
        claim = f"{case}: share of the ideal"
        yield Verdict(claim=claim, measured=row.share, expected=LEAST_SHARE)


def _cells(row: AttentionRow) -> list[str]:
    reference, peaks = row.reference_seconds, (row.full_peak_bytes, row.block_peak_bytes)
    return [
        row.direction,
        f"{row.sequence_length:,}",
        str(row.block_size),
        f"{row.full_seconds:.3g}",
        f"{row.block_seconds:.3g}",
        "-" if reference is None else f"{reference:.3g}",
        f"{row.time_ratio:.3g}",
        f"{row.flop_ratio:.3g}",
        f"{row.share:.0%}",
        *("-" if held is None else f"{held / 1e6:.0f}" for held in peaks),
        str(row.rounds),
    ]
