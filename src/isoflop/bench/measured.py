"""What every measurement shares: turns, paired ratios, bars, a report and how it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from statistics import quantiles
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict
from torch import __version__ as torch_version

from isoflop.bench import machine
from isoflop.config import Frozen
from isoflop.training import environment

Watch = Callable[[str], None]
"""Told what goes on, by every measurement."""

TURN_SECONDS = 0.2
"""A turn of several steps takes about this long, so that caches are the contender's own."""


class Ratio(Frozen):
    """How many times as fast a contender's step is as the first of its group: over rounds."""

    group: int
    name: str
    reference: str
    """The group's first contender."""
    speed_ratio: float
    """Step time of `reference` over that of `name`: the median over rounds."""
    low: float
    """Lower quartile over rounds."""
    high: float
    """Upper quartile over rounds."""


class Verdict(Frozen):
    """A bar, what was measured against it, and whether it holds."""

    group: int = 0
    claim: str
    measured: float
    expected: float
    """Least value of `measured` at which the claim holds."""

    @property
    def held(self) -> bool:
        """Whether the bar is reached."""
        return self.measured >= self.expected

    @property
    def line(self) -> str:
        """The bar as a line for a terminal."""
        return (
            f"{'held' if self.held else 'NOT HELD'}: {self.claim}: {self.measured:.3g}, "
            f"expected at least {self.expected:.3g}"
        )


Row = TypeVar("Row", bound=Frozen)


class Report(Frozen, Generic[Row]):
    """Everything that one measurement gave."""

    # Nobody asks for the descriptions of its fields, and looking for the source of a class that is
    # made from a generic one takes a tenth of a second.
    model_config = ConfigDict(use_attribute_docstrings=False)

    rows: tuple[Row, ...]
    ratios: tuple[Ratio, ...] = ()
    """Of contenders that are grouped."""
    verdicts: tuple[Verdict, ...] = ()
    """On these."""
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    busy: str | None = None
    """What else used the machine while this was forced; None for an idle machine."""
    torch: str
    transformers: str | None = None
    """Version of the peer; None where it took no part."""
    machine: str

    @property
    def warnings(self) -> list[str]:
        """What a reader has to know first, as lines for a terminal."""
        if self.busy is None:
            return []
        return [f"WARNING: measured on a BUSY machine, do not quote: {self.busy}"]


def conditions(*, force: bool, threads: int) -> dict[str, Any]:
    """Return what `Report` says of the machine, before anything is measured on it.

    Args:
        force: measure although other processes are at work; the report then says so. Every
            measurement takes it.
        threads: that measurements use.

    Raises:
        ValueError: the machine is busy and nobody forced it.
    """
    reason = machine.busy()
    if reason is not None and not force:
        raise ValueError(
            f"{reason}; wait until it is idle, or use --force for numbers that must not be quoted"
        )
    return {
        "busy": reason,
        "torch": str(torch_version),
        "machine": environment("cpu", threads, compiled=False).machine,
    }


def mean_seconds(
    call: Callable[[], object], count: int = 1, clock: Callable[[], float] | None = None
) -> float:
    """Return the mean time of a number of calls, by a clock in seconds, the wall's unless given."""
    clock = clock or time.perf_counter
    started = clock()
    for _ in range(count):
        call()
    return (clock() - started) / count


def in_turns(
    turns: Sequence[Callable[[], float]], *, seconds: float, rounds: int
) -> list[list[float]]:
    """Return what each turn says it took, by contender and round.

    Args:
        turns: of the contenders, which are taken one after the other in every round.
        seconds: time for rounds.
        rounds: so many at the least.
    """
    times: list[list[float]] = [[] for _ in turns]
    until = time.perf_counter() + seconds
    while len(times[0]) < rounds or time.perf_counter() < until:
        for turn, own in zip(turns, times, strict=True):
            own.append(turn())
    return times


def paired(reference: Sequence[float], times: Sequence[float]) -> dict[str, float]:
    """Return how many times as fast as a reference, round by round: quartiles and median."""
    ratios = [a / b for a, b in zip(reference, times, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {"low": low, "speed_ratio": middle, "high": high}


def text_table(
    columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row], left: Collection[str] = ()
) -> list[str]:
    """Return lines of aligned cells below their headings; only those of columns `left` are left."""
    cells = [list(columns), *([cell(row) for cell in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if head in left else cell.rjust(width)
            for head, cell, width in zip(columns, line, widths, strict=True)
        )
        for line in cells
    ]


def thread_words(threads: int) -> str:
    """Return a number of threads in words."""
    return "1 thread" if threads == 1 else f"{threads} threads"
