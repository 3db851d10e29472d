"""One run's progress for who watches it train: a bar in a terminal, a line now and then else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from isoflop.notation import count

if TYPE_CHECKING:
    from isoflop.runs import Progress as Step

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def watching() -> Iterator[Callable[[Step], None]]:
    """Give a function to be told of each step; it shows them on standard error."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[now]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, now="")
        yield lambda step: progress.update(
            task, completed=step.step, total=step.steps, now=_now(step)
        )


def _lines() -> Callable[[Step], None]:
    last = time.monotonic()

    def tell(step: Step) -> None:
        nonlocal last
        if time.monotonic() - last >= SECONDS_BETWEEN_LINES or step.step == step.steps:
            last = time.monotonic()
            print(f"step {step.step:,} of {step.steps:,}, {_now(step)}", file=sys.stderr)

    return tell


def _now(step: Step) -> str:
    return f"loss {step.loss:.4f}, {count(step.tokens_per_second)} tokens/s"
