"""Measures block attention against torch's fused full attention, and tells what came of it.

Each sequence length and direction is timed in a fresh process, in which the contenders take turns.
Peak memory is what the system says a process held at most during one call, in a fresh process for
each contender, so that none counts what another left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from statistics import median
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.bench.machine import DTYPES, grown_bytes, in_fresh_process
from isoflop.bench.measured import (
    Report,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    paired,
)
from isoflop.config import BlockAttention, Frozen, FullAttention, Precision
from isoflop.costs import attended_pairs
from isoflop.hardware import use_threads
from isoflop.ops import block_attention, block_attention_reference

Direction = Literal["forward", "forward+backward"]

LENGTHS = tuple(1024 << i for i in range(7))
"""1K to 64K; twice the last is measured forward only."""
BLOCK_SIZES = (64, 128, 256, 512)
LONGEST_REFERENCE = 8192
"""The reference holds T x T scores."""
LEAST_ROUNDS = 2


class _Attended(Frozen):
    """What is attended, in one direction."""

    sequence_length: int
    direction: Direction
    top_k: int
    batch: int = 1
    heads: int = 4
    head_width: int = 64
    dtype: Precision
    threads: int


class AttentionCase(_Attended):
    """Contenders at one length: full attention, and block attention for each block size."""

    block_sizes: tuple[int, ...]
    seconds: float
    """Time for rounds, of which there are at least `LEAST_ROUNDS`."""


class AttentionRow(_Attended):
    """Block attention of one block size beside full attention in the same rounds."""

    block_size: int
    full_seconds: float
    """Median over rounds, as the next."""
    block_seconds: float
    reference_seconds: float | None = None
    """One call of the written-out reference; None where its scores would not fit."""
    time_ratio: float
    """Full over block time: the median over rounds of the paired ratio."""
    flop_ratio: float
    """Pairs of query and key under causal full attention over those under block attention: what
    the time ratio would be if only these took time."""
    full_peak_bytes: int | None = None
    """Most memory held during a call, inputs and results included; None where it is not told."""
    block_peak_bytes: int | None = None
    rounds: int

    @property
    def share(self) -> float:
        """Share of the ideal that is reached."""
        return self.time_ratio / self.flop_ratio


AttentionReport = Report[AttentionRow]


def attention_cases(
    *,
    lengths: Sequence[int] = LENGTHS,
    block_sizes: Sequence[int] = BLOCK_SIZES,
    top_k: int = 3,
    dtype: Precision = "fp32",
    threads: int,
    seconds: float = 8.0,
) -> tuple[AttentionCase, ...]:
    """Return the standard comparison: every length both ways, and twice the longest forward.

    Block sizes that would attend everything at a length are left out there.

    Raises:
        ValueError: nothing is left to measure, or a number is not positive.
    """
    for name, given in {"top_k": (top_k,), "length": lengths, "block size": block_sizes}.items():
        if (least := min(given, default=1)) < 1:
            raise ValueError(f"{name} is {least}; expected at least 1")
    sizes = sorted(set(block_sizes))
    wanted: list[tuple[int, Direction]] = [
        (length, direction) for length in sorted(set(lengths)) for direction in get_args(Direction)
    ]
    if wanted:
        wanted.append((2 * max(lengths), "forward"))
    cases = tuple(
        AttentionCase(
            sequence_length=length,
            direction=direction,
            block_sizes=tuple(size for size in sizes if size * top_k < length),
            dtype=dtype,
            threads=threads,
            seconds=seconds,
            top_k=top_k,
        )
        for length, direction in wanted
        if sizes and sizes[0] * top_k < min(length, max(lengths))
    )
    if not cases:
        raise ValueError(
            f"no length of {list(lengths)} is above top_k = {top_k} blocks of {list(block_sizes)}; "
            "expected longer sequences, since shorter ones are attended fully"
        )
    return cases


def bench_attention(
    cases: Sequence[AttentionCase], *, force: bool = False, watch: Watch = lambda _: None
) -> AttentionReport:
    """Measure every case in a process of its own.

    Args:
        cases: as `attention_cases` makes them.

    Raises:
        ValueError: the machine is busy.
    """
    found = conditions(force=force, threads=cases[0].threads)
    rows: list[AttentionRow] = []
    for case in cases:
        watch(f"{case.direction}, {case.sequence_length:,} tokens")
        measured = in_fresh_process(measure, case)
        full_peak, *peaks = (
            in_fresh_process(peak_bytes, case, size) for size in (0, *case.block_sizes)
        )
        rows += [
            row.model_copy(update={"full_peak_bytes": full_peak, "block_peak_bytes": peak})
            for row, peak in zip(measured, peaks, strict=True)
        ]
    return AttentionReport(rows=tuple(rows), **found)


def measure(case: AttentionCase) -> list[AttentionRow]:
    """Time a case in this process, which should have done nothing before."""
    length, sizes = case.sequence_length, (0, *case.block_sizes)
    with use_threads(case.threads):
        short, inputs = _inputs(case, _warm_up_length(case)), _inputs(case, length)
        for size in sizes:
            _call(case, short, size)()
        turns = [partial(mean_seconds, _call(case, inputs, size)) for size in sizes]
        full, *blocks = in_turns(turns, seconds=case.seconds, rounds=LEAST_ROUNDS)
        references = {
            size: mean_seconds(_call(case, inputs, size, block_attention_reference))
            for size in case.block_sizes
            if length <= LONGEST_REFERENCE
        }
    full_pairs, _ = attended_pairs(FullAttention(), length)
    rows: list[AttentionRow] = []
    for size, times in zip(case.block_sizes, blocks, strict=True):
        pairs, _ = attended_pairs(BlockAttention(block_size=size, top_k=case.top_k), length)
        rows.append(
            AttentionRow(
                **case.model_dump(include=set(_Attended.model_fields)),
                block_size=size,
                full_seconds=median(full),
                block_seconds=median(times),
                reference_seconds=references.get(size),
                time_ratio=paired(full, times)["speed_ratio"],
                flop_ratio=full_pairs / pairs,
                rounds=len(times),
            )
        )
    return rows


def peak_bytes(case: AttentionCase, size: int) -> int | None:
    """Return the most memory that one call held in this fresh process, inputs and results included.

    Args:
        case: what is called.
        size: block size, 0 for full attention.
    """
    with use_threads(case.threads):
        _call(case, _inputs(case, _warm_up_length(case)), size)()
        return grown_bytes(lambda: _call(case, _inputs(case, case.sequence_length), size)())


def _warm_up_length(case: AttentionCase) -> int:
    """Return a short length at which no block size attends everything."""
    return min(case.sequence_length, (case.top_k + 1) * max(case.block_sizes))


def _inputs(case: AttentionCase, length: int) -> list[Tensor]:
    """Return queries, keys, values and what the result's gradient is."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.heads, length, case.head_width)
    made = [torch.randn(shape, generator=generator).to(DTYPES[case.dtype]) for _ in range(4)]
    return [*(x.requires_grad_(case.direction != "forward") for x in made[:3]), made[3]]


def _call(
    case: AttentionCase,
    inputs: Sequence[Tensor],
    size: int,
    by_block: Callable[..., Tensor] = block_attention,
) -> Callable[[], object]:
    """Return what attends once, by blocks of a size, or all keys where that is 0."""
    *leaves, grad = inputs
    attend: Callable[..., Tensor] = partial(F.scaled_dot_product_attention, is_causal=True)
    if size:
        attend = partial(by_block, block_size=size, top_k=case.top_k)

    def call() -> object:
        if case.direction == "forward":
            return attend(*leaves)
        return torch.autograd.grad(attend(*leaves), leaves, grad)

    return call


def crossovers(rows: Sequence[AttentionRow]) -> Iterator[tuple[Direction, int, int | None]]:
    """Yield for each direction and block size the length from which block attention is faster.

    None where it is not faster at the longest length measured.
    """
    for direction, size in dict.fromkeys((row.direction, row.block_size) for row in rows):
        own = [row for row in rows if (row.direction, row.block_size) == (direction, size)]
        own.sort(key=lambda row: row.sequence_length, reverse=True)
        faster = list(takewhile(lambda row: row.time_ratio > 1, own))
        yield direction, size, faster[-1].sequence_length if faster else None


SHOWN = (
    *("direction", "sequence_length", "block_size", "full_seconds", "block_seconds"),
    *("reference_seconds", "time_ratio", "flop_ratio", "share", "full_peak_bytes"),
    *("block_peak_bytes", "rounds"),
)


def describe_attention(report: AttentionReport) -> list[str]:
    """Return a report as lines for a terminal: a table, then crossovers."""
    first = report.rows[0]
    since = [
        f"{direction}, blocks of {size}: "
        + (f"faster from {length:,} tokens on" if length else "not faster at the longest length")
        for direction, size, length in crossovers(report.rows)
    ]
    return report.told(
        f"{first.batch} x {first.heads} heads of {first.head_width}, {first.dtype}, "
        f"{first.threads} threads, top_k {first.top_k}; full is torch's fused causal attention",
        SHOWN,
        *since,
    )
