"""The bars that training steps are held to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isoflop.bench.report import BenchRow, Ratio, Verdict

OVER_PEER = {False: 1.3, True: 1.0}
"""Least speed of our compiled step over the peer's, eager and compiled."""
ROUTED_SHARE = 0.9
"""Least share of the inverse FLOP ratio by which a routed model's step is faster."""
ROUTED_FROM = (256, 1024)
"""Width and sequence length from which on the share is expected."""


def verdicts(rows: Sequence[BenchRow], ratios: Sequence[Ratio]) -> tuple[Verdict, ...]:
    """Return what the bars say; contenders of different shapes or ways are held to none.

    Args:
        rows: the first of each group is what the others are compared with.
        ratios: one for every further row, in their order.
    """
    following = iter(ratios)
    first: dict[int, BenchRow] = {}
    found: list[Verdict] = []
    for row in rows:
        ours = first.setdefault(row.group, row)
        if row is ours:
            continue
        ratio = next(following)
        if _shape(row) == _shape(ours) and ours.compiled:
            found += _held_to(ours, row, ratio.speed_ratio)
    return tuple(found)


def _held_to(ours: BenchRow, row: BenchRow, speed_ratio: float) -> Iterator[Verdict]:
    if row.implementation == "transformers":
        yield Verdict(
            group=row.group,
            claim=f"{ours.name} is fast enough beside {row.name}",
            measured=1 / speed_ratio,
            expected=OVER_PEER[row.compiled],
        )
    elif row.compiled and row.flops_per_step < ours.flops_per_step and _wide_and_long(row):
        yield Verdict(
            group=row.group,
            claim=f"{row.name} gains at least {ROUTED_SHARE:g} of what its FLOPs promise",
            measured=speed_ratio,
            expected=ROUTED_SHARE * ours.flops_per_step / row.flops_per_step,
        )


def _shape(row: BenchRow) -> tuple[int, ...]:
    return (
        row.width,
        row.blocks,
        row.heads,
        row.sequence_length,
        row.sequences_per_step,
        row.vocabulary,
        row.threads,
    )


def _wide_and_long(row: BenchRow) -> bool:
    width, length = ROUTED_FROM
    return row.width >= width and row.sequence_length >= length
