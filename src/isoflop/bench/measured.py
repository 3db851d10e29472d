"""What every measurement shares: turns, paired ratios, a report and how it reads."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median, quantiles
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict
from torch import __version__ as torch_version

from isoflop.bench import machine
from isoflop.config import Frozen, Precision, RunConfig
from isoflop.costs import parameters
from isoflop.training import environment

Watch = Callable[[str], None]
"""Told what goes on, by every measurement."""

TURN_SECONDS = 0.2
"""A turn of several steps takes about this long, so that caches are the contender's own."""


class Paired(Frozen):
    """A contender's step beside that of the first of its group, over the same rounds."""

    step_seconds: float
    """Median over rounds."""
    speed_ratio: float
    """Step time of the first over this one: the median over rounds of the paired ratio."""
    low: float
    """Lower quartile of that over rounds."""
    high: float
    """Upper quartile."""
    rounds: int
    """Turns that every contender had."""


class StepRow(Frozen):
    """What rows tell of a run whose step is measured, as `settings_of` gives it."""

    parameters: int
    """Total parameters."""
    width: int
    blocks: int
    sequence_length: int
    sequences_per_step: int
    dtype: Precision
    threads: int
    """CPU threads."""


Row = TypeVar("Row", bound=Frozen)


class Report(Frozen, Generic[Row]):
    """Everything that one measurement gave."""

    # Nobody asks for the descriptions of its fields, and looking for the source of a class that is
    # made from a generic one takes a tenth of a second.
    model_config = ConfigDict(use_attribute_docstrings=False)

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    busy: str | None = None
    """What else used the machine while this was forced; None for an idle machine."""
    torch: str
    machine: str

    def told(self, heading: str, shown: Sequence[str], *lines: str) -> list[str]:
        """Return the report as lines for a terminal: a warning, a heading, a table, and notes.

        Args:
            heading: what the rows are about.
            shown: names of what is told of each row.
            lines: behind the table.
        """
        warning = f"WARNING: measured on a BUSY machine, do not quote: {self.busy}"
        notes = (f"note: {note}" for note in self.notes)
        table = text_table(self.rows, shown)
        return [*([warning] if self.busy else []), heading, *table, *lines, *notes]


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


def settings_of(config: RunConfig, threads: int) -> dict[str, Any]:
    """Return the fields of `StepRow` for a run."""
    return {
        "parameters": parameters(config.model).total,
        **config.model.model_dump(include={"width", "blocks"}),
        "sequence_length": config.data.sequence_length,
        "sequences_per_step": config.sequences_per_step,
        "dtype": config.recipe.precision,
        "threads": threads,
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


def steady(
    call: Callable[[], object], warm_up: int, clock: Callable[[], float] | None = None
) -> Callable[[], float]:
    """Return a turn: the mean time of as many calls as take `TURN_SECONDS`, known after some."""
    mean_seconds(call, warm_up, clock)
    count = max(1, round(TURN_SECONDS / max(mean_seconds(call, 1, clock), 1e-6)))
    return partial(mean_seconds, call, count, clock)


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


def paired(reference: Sequence[float], times: Sequence[float]) -> dict[str, Any]:
    """Return the fields of `Paired` of a contender's times and those of the first."""
    ratios = [a / b for a, b in zip(reference, times, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {
        "step_seconds": median(times),
        "low": low,
        "speed_ratio": middle,
        "high": high,
        "rounds": len(times),
    }


def text_table(rows: Sequence[object], shown: Sequence[str]) -> list[str]:
    """Return lines of aligned cells below headings of two lines: what rows have by these names."""
    columns = []
    for name in shown:
        values = [getattr(row, name) for row in rows]
        unit = 1e6 if name.endswith("_bytes") else 1
        *before, last = name.replace("_bytes", "_MB").split("_")
        cells = [" ".join(before), last, *(_cell(value, unit) for value in values)]
        width = max(map(len, cells))
        text = all(isinstance(value, str) for value in values)
        columns.append([cell.ljust(width) if text else cell.rjust(width) for cell in cells])
    lines = ["  ".join(line).rstrip() for line in zip(*columns, strict=True)]
    # No heading may have two words.
    return lines if lines[0] else lines[1:]


def _cell(value: Any, unit: float) -> str:
    if value is None or isinstance(value, str | bool):
        return "-" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) and unit == 1 else f"{value / unit:,.4g}"
