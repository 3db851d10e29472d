"""How measured decoding reads in a terminal, and its figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from isoflop.bench.decode.measuring import DEPTH, DecodeReport, DecodeRow
from isoflop.bench.measured import Verdict, text_table

BAR_WIDTH, BAR_BATCH = 512, 1
LEAST_SPEED_RATIO = 1.5
MOST_CACHE_RATIO = 0.58

COLUMNS: Mapping[str, Callable[[DecodeRow], str]] = {
    "dtype": lambda row: row.dtype,
    "threads": lambda row: str(row.threads),
    "batch": lambda row: str(row.batch),
    "tokens": lambda row: f"{row.context:,}",
    "model": lambda row: row.name,
    "ms/step": lambda row: f"{row.step_seconds * 1e3:.3g}",
    "tokens/s": lambda row: f"{row.tokens_per_second:,.0f}",
    "faster": lambda row: f"{row.speed_ratio:.3g}",
    "middle half": lambda row: "" if row.is_reference else f"{row.low:.3g} to {row.high:.3g}",
    "FLOPs": lambda row: f"{row.flop_ratio:.3g}",
    "weights": lambda row: f"{row.parameter_ratio:.3g}",
    "bytes": lambda row: f"{row.byte_ratio:.3g}",
    "cache MB": lambda row: f"{row.cache_bytes / 1e6:,.1f}",
    "rounds": lambda row: str(row.rounds),
}
MEANING = (
    "faster: dense step time over this one, median of paired rounds, and its middle half; "
    "FLOPs, weights, bytes: what a dense step computes and reads, over this one"
)


def describe_decode(report: DecodeReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, bars."""
    return [
        *report.warnings,
        shape_words(report),
        MEANING,
        *text_table(COLUMNS, report.rows, ("dtype", "model")),
        "",
        *(verdict.line for verdict in decode_verdicts(report)),
        *(f"note: {note}" for note in report.notes),
    ]


def decode_verdicts(report: DecodeReport) -> tuple[Verdict, ...]:
    """Return the bars that decoding is held to, each by the row that does worst."""
    routed = [row for row in report.rows if row.is_routed]
    alone = [row for row in routed if row.width >= BAR_WIDTH and row.batch == BAR_BATCH]
    peers = [row for row in report.rows if row.implementation == "transformers"]
    speed = "{} over dense in speed at batch 1, at the least"
    bars: list[tuple[str, float, list[tuple[float, DecodeRow]]]] = [
        (speed, LEAST_SPEED_RATIO, [(row.speed_ratio, row) for row in alone]),
        (
            "dense over {} in speed, at the least",
            1.0,
            [(1 / row.speed_ratio, row) for row in peers],
        ),
        (
            "dense over {} in bytes of cache, at the least",
            1 / MOST_CACHE_RATIO,
            [(1 / row.cache_ratio, row) for row in routed],
        ),
    ]
    found = []
    for claim, expected, rows in bars:
        if rows:
            measured, worst = min(rows, key=lambda one: one[0])
            said = f"{claim.format(worst.name)} ({worst.place})"
            found.append(Verdict(claim=said, measured=measured, expected=expected))
    return tuple(found)


def shape_words(report: DecodeReport) -> str:
    """Say what was decoded, what was forced, and what came of it."""
    first = report.rows[0]
    shares = sorted({row.realised_share for row in report.rows if row.is_routed})
    realised = " to ".join(f"{share:.2%}" for share in dict.fromkeys((shares[0], shares[-1])))
    return (
        f"Width {first.width}, {first.blocks} blocks, {first.heads} heads of {first.head_width}, "
        f"feed-forward {first.hidden}, vocabulary {first.vocabulary:,}; every other block routed, "
        f"forced to {DEPTH.capacity:.1%} of the tokens (realised: {realised})"
    )
