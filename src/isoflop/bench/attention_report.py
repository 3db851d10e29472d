"""How measured attention reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import pandas as pd

from isoflop.bench.attention import AttentionReport, AttentionRow, Direction, crossovers
from isoflop.bench.report import Verdict
from isoflop.report.figure import FULL_WIDTH, Figure, figure
from isoflop.report.theme import INK, MUTED

LENGTH_LABEL = "datum.value % 1024 ? format(datum.value, ',') : datum.value / 1024 + 'K'"
"""Vega expression that writes a tick as 8K, of 1,024 tokens each."""

FASTER_FROM = 4096
SHARE_FROM = 32768
BAR_BLOCK_SIZE, BAR_TOP_K = 512, 3
LEAST_SHARE = 0.6
MOST_MEMORY = 1.5


def describe_attention(report: AttentionReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, crossovers, bars."""
    lines = []
    if report.busy is not None:
        lines.append(f"WARNING: measured on a BUSY machine, do not quote: {report.busy}")
    first = report.rows[0]
    lines.append(
        f"{first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads, top_k {first.top_k}; full is torch's fused causal attention"
    )
    head = ["direction", "tokens", "block", "full s", "block s", "reference s", "faster"]
    cells = [[*head, "FLOPs", "share", "full MB", "block MB", "rounds"]]
    cells += [_cells(row) for row in report.rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines += [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines += ["", *map(_crossover, crossovers(report.rows))]
    lines += [
        f"{'held' if verdict.held else 'NOT HELD'}: {verdict.claim}: {verdict.measured:.3g}, "
        f"expected at least {verdict.expected:.3g}"
        for verdict in attention_verdicts(report)
    ]
    return lines


def attention_verdicts(report: AttentionReport) -> tuple[Verdict, ...]:
    """Return the bars that training with blocks of 512 and top_k 3 is held to."""
    return tuple(
        verdict
        for row in report.rows
        if (row.direction, row.block_size, row.top_k)
        == ("forward+backward", BAR_BLOCK_SIZE, BAR_TOP_K)
        for verdict in _held_to(row)
    )


def attention_figure(report: AttentionReport) -> Figure:
    """Draw how many times as fast block attention is, beside what its FLOPs promise."""
    table = pd.DataFrame(
        {
            "sequence_length": row.sequence_length,
            "block": f"blocks of {row.block_size}",
            "direction": row.direction,
            "time_ratio": row.time_ratio,
            "flop_ratio": row.flop_ratio,
            "share": row.share,
            "full_seconds": row.full_seconds,
            "block_seconds": row.block_seconds,
        }
        for row in report.rows
    )
    lengths = sorted(set(table["sequence_length"]))
    x = alt.X(
        "sequence_length:Q",
        title="Tokens in the sequence",
        scale=alt.Scale(type="log", base=2, domain=[lengths[0], lengths[-1]], nice=False),
        axis=alt.Axis(values=lengths, labelExpr=LENGTH_LABEL, grid=False),
    )
    y = alt.Y(
        "time_ratio:Q",
        title="Times as fast as full attention",
        scale=alt.Scale(
            type="log",
            domain=[0.8 * min(table["time_ratio"]), 1.2 * max(table["flop_ratio"])],
            nice=False,
        ),
        axis=alt.Axis(values=[2.0**i for i in range(-4, 11)], format="~g"),
    )
    order = [f"blocks of {size}" for size in sorted({row.block_size for row in report.rows})]
    colour = alt.Color(
        "block:N", sort=order, title=None, scale=alt.Scale(scheme="viridis", domain=order)
    )
    dash = alt.StrokeDash(
        "direction:N",
        title=None,
        scale=alt.Scale(domain=["forward+backward", "forward"], range=[[1, 0], [2, 2]]),
    )
    tooltip = [
        alt.Tooltip("block:N", title="Block attention"),
        alt.Tooltip("direction:N", title="Direction"),
        alt.Tooltip("sequence_length:Q", title="Tokens", format=","),
        alt.Tooltip("time_ratio:Q", title="Times as fast", format=".2f"),
        alt.Tooltip("flop_ratio:Q", title="FLOPs promise", format=".2f"),
        alt.Tooltip("share:Q", title="Share of it", format=".0%"),
    ]
    base = alt.Chart().encode(x=x, y=y)
    layers = [
        base.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X(), y=alt.datum(1)),
        base.transform_filter("datum.direction === 'forward+backward'")
        .mark_line(strokeWidth=6, strokeOpacity=0.22)
        .encode(y="flop_ratio:Q", color=colour),
        base.mark_line(strokeWidth=1.8).encode(color=colour, strokeDash=dash),
        base.mark_point(filled=True, size=45, opacity=1, stroke=INK, strokeWidth=0.4).encode(
            color=colour, tooltip=tooltip
        ),
    ]
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
        yield Verdict(
            group=0,
            claim=f"{case}: faster than full attention",
            measured=row.time_ratio,
            expected=1.0,
        )
        if row.memory_ratio is not None:
            yield Verdict(
                group=0,
                claim=f"{case}: full attention's memory, in block attention's",
                measured=1 / row.memory_ratio,
                expected=1 / MOST_MEMORY,
            )
    if row.sequence_length >= SHARE_FROM:
        yield Verdict(
            group=0, claim=f"{case}: share of the ideal", measured=row.share, expected=LEAST_SHARE
        )


def _cells(row: AttentionRow) -> list[str]:
    reference = row.reference_seconds
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
        _megabytes(row.full_peak_bytes),
        _megabytes(row.block_peak_bytes),
        str(row.rounds),
    ]


def _megabytes(held: int | None) -> str:
    return "-" if held is None else f"{held / 1e6:.0f}"


def _crossover(found: tuple[Direction, int, int | None]) -> str:
    direction, size, since = found
    if since is None:
        return f"{direction}, blocks of {size}: not faster at the longest length measured"
    return f"{direction}, blocks of {size}: faster from {since:,} tokens on"
