"""Measures block attention against torch's fused full attention, and the reference.

Each sequence length and direction is timed in a fresh process, in which the contenders take turns.
Peak memory is what the system says a process held at most during one call, in a fresh process for
each contender, so that none counts what another left behind.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.bench.machine import DTYPES, refuse_busy
from isoflop.config import BlockAttention, Frozen, FullAttention, Precision
from isoflop.costs import attended_pairs
from isoflop.hardware import use_threads
from isoflop.ops import block_attention, block_attention_reference
from isoflop.training import environment

Direction = Literal["forward", "forward+backward"]

LENGTHS = tuple(1024 << i for i in range(7))
"""1K to 64K; twice the last is measured forward only."""
BLOCK_SIZES = (64, 128, 256, 512)
LONGEST_REFERENCE = 8192
"""The reference holds T x T scores."""
LEAST_ROUNDS = 2

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")

Call = Callable[[], object]


class AttentionCase(Frozen):
    """Contenders at one length: full attention, and block attention for each block size."""

    sequence_length: int
    direction: Direction
    block_sizes: tuple[int, ...]
    top_k: int
    batch: int
    heads: int
    head_width: int
    dtype: Precision
    threads: int
    seconds: float
    """Time for rounds, of which there are at least `LEAST_ROUNDS`."""


class AttentionRow(Frozen):
    """Block attention of one block size beside full attention in the same rounds."""

    sequence_length: int
    block_size: int
    top_k: int
    direction: Direction
    dtype: Precision
    threads: int
    batch: int
    heads: int
    head_width: int
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


class AttentionReport(Frozen):
    """Everything that one measurement of attention gave."""

    rows: tuple[AttentionRow, ...]
    busy: str | None = None
    """What else used the machine while this was forced; None for an idle machine."""
    torch: str
    machine: str


def attention_cases(
    *,
    lengths: Sequence[int] = LENGTHS,
    block_sizes: Sequence[int] = BLOCK_SIZES,
    top_k: int = 3,
    dtype: Precision = "fp32",
    threads: int,
    heads: int = 4,
    head_width: int = 64,
    batch: int = 1,
    seconds: float = 8.0,
) -> tuple[AttentionCase, ...]:
    """Return the standard comparison: every length both ways, and twice the longest forward.

    Block sizes that would attend everything at a length are left out there.

    Raises:
        ValueError: nothing is left to measure, or a number is not positive.
    """
    given = {"top_k": top_k, "heads": heads, "head_width": head_width, "batch": batch}
    for name, value in (*given.items(), *(("length", n) for n in (*lengths, *block_sizes))):
        if value < 1:
            raise ValueError(f"{name} is {value}; expected at least 1")
    wanted: list[tuple[int, Direction]] = []
    for length in sorted(set(lengths)):
        wanted += [(length, "forward"), (length, "forward+backward")]
    if wanted and min(block_sizes, default=1) * top_k < max(lengths):
        wanted.append((2 * max(lengths), "forward"))
    cases = []
    for length, direction in wanted:
        sizes = tuple(size for size in sorted(set(block_sizes)) if size * top_k < length)
        if sizes:
            cases.append(
                AttentionCase(
                    sequence_length=length,
                    direction=direction,
                    block_sizes=sizes,
                    top_k=top_k,
                    batch=batch,
                    heads=heads,
                    head_width=head_width,
                    dtype=dtype,
                    threads=threads,
                    seconds=seconds,
                )
            )
    if not cases:
        raise ValueError(
            f"no length of {list(lengths)} is above top_k = {top_k} blocks of {list(block_sizes)}; "
            "expected longer sequences, since shorter ones are attended fully"
        )
    return tuple(cases)


def bench_attention(
    cases: Sequence[AttentionCase],
    *,
    force: bool = False,
    watch: Callable[[str], None] = lambda _: None,
) -> AttentionReport:
    """Measure every case in a process of its own.

    Args:
        cases: as `attention_cases` makes them.
        force: measure although other processes are at work; the report then says so.
        watch: told what goes on.

    Raises:
        ValueError: the machine is busy.
    """
    reason = refuse_busy(force)
    rows: list[AttentionRow] = []
    fresh = multiprocessing.get_context("spawn")
    for case in cases:
        watch(f"{case.direction}, {case.sequence_length:,} tokens")
        with ProcessPoolExecutor(1, mp_context=fresh, max_tasks_per_child=1) as process:
            measured = process.submit(measure, case).result()
            full_peak, *peaks = (
                process.submit(peak_bytes, case, size).result() for size in (0, *case.block_sizes)
            )
        rows += [
            row.model_copy(update={"full_peak_bytes": full_peak, "block_peak_bytes": peak})
            for row, peak in zip(measured, peaks, strict=True)
        ]
    return AttentionReport(
        rows=tuple(rows),
        busy=reason,
        torch=torch.__version__,
        machine=environment("cpu", cases[0].threads, compiled=False).machine,
    )


def measure(case: AttentionCase) -> list[AttentionRow]:
    """Time a case in this process, which should have done nothing before."""
    with use_threads(case.threads):
        for call in _contenders(case, _warm_up_length(case)).values():
            call()
        contenders = _contenders(case, case.sequence_length)
        times: dict[int, list[float]] = {size: [] for size in contenders}
        until = time.perf_counter() + case.seconds
        while len(times[0]) < LEAST_ROUNDS or time.perf_counter() < until:
            for size, call in contenders.items():
                times[size].append(_seconds(call))
        references = {
            size: _seconds(_reference(case, size))
            for size in case.block_sizes
            if case.sequence_length <= LONGEST_REFERENCE
        }
    full_pairs, _ = attended_pairs(FullAttention(), case.sequence_length)
    rows = []
    for size in case.block_sizes:
        attention = BlockAttention(block_size=size, top_k=case.top_k)
        pairs, _ = attended_pairs(attention, case.sequence_length)
        rows.append(
            AttentionRow(
                **case.model_dump(exclude={"block_sizes", "seconds"}),
                block_size=size,
                full_seconds=median(times[0]),
                block_seconds=median(times[size]),
                reference_seconds=references.get(size),
                time_ratio=median(a / b for a, b in zip(times[0], times[size], strict=True)),
                flop_ratio=full_pairs / pairs,
                rounds=len(times[0]),
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
        with suppress(OSError, AttributeError):
            # Freed memory goes back to the system, so that it does not count as held.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = _held("VmRSS")
        call = _contenders(case, case.sequence_length)[size]
        try:
            # Sets the peak back to what is held now (proc(5)).
            _CLEAR.write_text("5")
        except OSError:
            return None
        call()
        after = _held("VmHWM")
    return None if before is None or after is None else after - before


def _warm_up_length(case: AttentionCase) -> int:
    """Return a short length at which no block size attends everything."""
    return min(case.sequence_length, (case.top_k + 1) * max(case.block_sizes))


def _contenders(case: AttentionCase, length: int) -> dict[int, Call]:
    """Return calls by block size, full attention as 0."""
    inputs = _inputs(case, length)

    def full() -> object:
        return _call(case, inputs, lambda q, k, v: _full(q, k, v))

    def block(size: int) -> Call:
        return lambda: _call(
            case,
            inputs,
            lambda q, k, v: block_attention(q, k, v, block_size=size, top_k=case.top_k),
        )

    return {0: full, **{size: block(size) for size in case.block_sizes}}


def _reference(case: AttentionCase, size: int) -> Call:
    inputs = _inputs(case, case.sequence_length)
    return lambda: _call(
        case,
        inputs,
        lambda q, k, v: block_attention_reference(q, k, v, block_size=size, top_k=case.top_k),
    )


def _inputs(case: AttentionCase, length: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shape = (case.batch, case.heads, length, case.head_width)
    made = [torch.randn(shape, generator=generator).to(DTYPES[case.dtype]) for _ in range(4)]
    return (*(x.requires_grad_(case.direction != "forward") for x in made[:3]), made[3])


def _full(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _call(case: AttentionCase, inputs: tuple[Tensor, ...], attend: Callable[..., Tensor]) -> object:
    *leaves, grad = inputs
    if case.direction == "forward":
        with torch.no_grad():
            return attend(*leaves)
    return torch.autograd.grad(attend(*leaves), leaves, grad)


def _seconds(call: Call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _held(name: str) -> int | None:
    """Return a number of bytes from the process's status, None where nothing tells it."""
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def crossovers(rows: Sequence[AttentionRow]) -> Iterator[tuple[Direction, int, int | None]]:
    """Yield for each direction and block size the length from which block attention is faster.

    None where it is not faster at the longest length measured.
    """
    keys = dict.fromkeys((row.direction, row.block_size) for row in rows)
    for direction, size in keys:
        own = sorted(
            (row for row in rows if (row.direction, row.block_size) == (direction, size)),
            key=lambda row: row.sequence_length,
        )
        since = None
        for row in reversed(own):
            if row.time_ratio <= 1:
                break
            since = row.sequence_length
        yield direction, size, since
