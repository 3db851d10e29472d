"""Measures block attention against torch's fused full attention, and tells what came of it.

Each sequence length and direction is timed in a fresh process, in which the contenders take turns.
Peak memory is what the system says a process held at most during one call, in a fresh process for
each contender, so that none counts what another left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    Verdict,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    paired,
    text_table,
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

Call = Callable[[], object]


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

    @property
    def memory_ratio(self) -> float | None:
        """Block over full peak memory."""
        if self.full_peak_bytes is None or self.block_peak_bytes is None:
            return None
        return self.block_peak_bytes / self.full_peak_bytes


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
    for name, value in (("top_k", top_k), *(("length", n) for n in (*lengths, *block_sizes))):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
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
    length = case.sequence_length
    with use_threads(case.threads):
        for call in _contenders(case, _warm_up_length(case)).values():
            call()
        turns = [partial(mean_seconds, call) for call in _contenders(case, length).values()]
        full, *blocks = in_turns(turns, seconds=case.seconds, rounds=LEAST_ROUNDS)
        inputs = _inputs(case, length)
        references = {
            size: mean_seconds(
                partial(_call, case, inputs, _blocks(case, size, block_attention_reference))
            )
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
        _contenders(case, _warm_up_length(case))[size]()
        return grown_bytes(lambda: _contenders(case, case.sequence_length)[size]())


def _warm_up_length(case: AttentionCase) -> int:
    """Return a short length at which no block size attends everything."""
    return min(case.sequence_length, (case.top_k + 1) * max(case.block_sizes))


def _contenders(case: AttentionCase, length: int) -> dict[int, Call]:
    """Return calls by block size, full attention as 0."""
    attends = {0: partial(F.scaled_dot_product_attention, is_causal=True)}
    attends |= {size: _blocks(case, size, block_attention) for size in case.block_sizes}
    inputs = _inputs(case, length)
    return {size: partial(_call, case, inputs, attend) for size, attend in attends.items()}


def _blocks(case: AttentionCase, size: int, attend: Callable[..., Tensor]) -> partial[Tensor]:
    return partial(attend, block_size=size, top_k=case.top_k)


def _inputs(case: AttentionCase, length: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.heads, length, case.head_width)
    made = [torch.randn(shape, generator=generator).to(DTYPES[case.dtype]) for _ in range(4)]
    return (*(x.requires_grad_(case.direction != "forward") for x in made[:3]), made[3])


def _call(case: AttentionCase, inputs: tuple[Tensor, ...], attend: Callable[..., Tensor]) -> object:
    *leaves, grad = inputs
    if case.direction == "forward":
        with torch.no_grad():
            return attend(*leaves)
    return torch.autograd.grad(attend(*leaves), leaves, grad)


def crossovers(rows: Sequence[AttentionRow]) -> Iterator[tuple[Direction, int, int | None]]:
    """Yield for each direction and block size the length from which block attention is faster.

    None where it is not faster at the longest length measured.
    """
    keys = dict.fromkeys((row.direction, row.block_size) for row in rows)
    for direction, size in keys:
        own = [row for row in rows if (row.direction, row.block_size) == (direction, size)]
        own.sort(key=lambda row: row.sequence_length, reverse=True)
        faster = list(takewhile(lambda row: row.time_ratio > 1, own))
        yield direction, size, faster[-1].sequence_length if faster else None


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


def _known(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)
