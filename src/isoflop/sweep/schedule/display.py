"""What a person sees of a study that is being trained: a live table, or plain lines in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isoflop.config import RunRecord
from isoflop.costs import parameters
from isoflop.planning import PlannedRun, short_flops
from isoflop.sweep.schedule.forecast import Going, View
from isoflop.text import quoted

REDRAW_SECONDS = 0.25
LINE_SECONDS = 25.0
"""Time between two lines on progress where there is no terminal, so that a log gets one at least
every half a minute, however busy the machine is."""
NAMED = 4
"""Runs under way that such a line tells of."""


class Display:
    """Tells each thing that happens in a line, and how the runs go: in a live table on a terminal,
    else in a line now and then.

    Args:
        console: where to.
        clock: seconds, monotonic.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        # Drawn by the scheduler's own loop: a thread would have to be kept out of signals' way.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown = -math.inf

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line, above the table where there is one."""
        self._console.print(Text(quoted(text)), soft_wrap=True)

    def recorded(self, run: PlannedRun, record: RunRecord, done: int, total: int) -> None:
        """Tell the outcome of a run, the `done`th of `total` that the grid knows of."""
        self.say(f"[{done}/{total}] {describe(run)}: {_outcome(record)}")

    @property
    def is_due(self) -> bool:
        """Whether it is time to show anew how the runs go."""
        every = REDRAW_SECONDS if self._live.is_started else LINE_SECONDS
        return self._clock() - self._shown >= every

    def show(self, view: View) -> None:
        """Draw the table anew, or print a line; the first line waits for the first step."""
        if self._live.is_started:
            self._live.update(Group(_table(view.going), Text(_summary(view))), refresh=True)
        elif self._shown == -math.inf and not any(one.step for one in view.going):
            return
        else:
            self.say(progress_line(view))
        self._shown = self._clock()


def progress_line(view: View) -> str:
    """Return how the runs go: done of expected, what is running, its loss, the time left."""
    running = [_standing(one) for one in view.going[:NAMED]]
    if len(view.going) > NAMED:
        running.append(f"and {len(view.going) - NAMED} more")
    parts = [f"{view.done} of {view.expected} runs done"]
    if running:
        parts.append(f"running: {'; '.join(running)}")
    if view.elsewhere:
        parts.append(f"{view.elsewhere} in another process")
    if view.remaining_seconds is not None:
        parts.append(f"about {duration(view.remaining_seconds)} left")
    return " | ".join(parts)


def _standing(one: Going) -> str:
    size = f"{one.run.variant}, {parameters(one.run.config.model).total:,} parameters"
    if one.step is None:
        return f"{size}, starting"
    step = one.step
    return f"{size}, step {step.step:,} of {step.steps:,}, loss {step.loss:.3f}"


def describe(run: PlannedRun) -> str:
    """Return the variant, size, budget and seed of a run."""
    size = parameters(run.config.model).total
    return (
        f"{run.variant}, {size:,} parameters, {short_flops(run.budget_flops)} FLOPs, "
        f"seed {run.config.seed}"
    )


def _outcome(record: RunRecord) -> str:
    if record.state != "finished":
        return f"{record.state}: {record.reason}"
    evaluation = record.evaluation("validation")
    loss = "no validation loss" if evaluation is None else f"validation loss {evaluation.loss:.4f}"
    return f"{loss}, {duration(record.seconds)}"


def _table(going: tuple[Going, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("variant", "parameters", "budget", "seed", "", "step", "loss", "tokens/s"):
        table.add_column(title, justify="left" if title in ("variant", "") else "right")
    for one in going:
        config, step = one.run.config, one.step
        done = step.step if step else 0
        table.add_row(
            Text(quoted(one.run.variant)),
            f"{parameters(config.model).total:,}",
            f"{one.run.budget_flops:.3g}",
            str(config.seed),
            ProgressBar(total=config.steps, completed=done, width=16),
            f"{done:,}/{config.steps:,}" if step else "starting",
            f"{step.loss:.3f}" if step else "",
            f"{step.tokens_per_second:,.0f}" if step else "",
        )
    return table


def _summary(view: View) -> str:
    parts = [f"{view.finished} finished", f"{len(view.going)} running", f"{view.left} left"]
    if view.added:
        parts.append(f"usually {view.added} added")
    if view.diverged:
        parts.append(f"{view.diverged} diverged")
    if view.failed:
        parts.append(f"{view.failed} failed")
    if view.elsewhere:
        parts.append(f"{view.elsewhere} in another process")
    if view.flops_per_second:
        parts.append(f"{view.flops_per_second / 1e9:,.1f} GFLOP/s")
    if view.remaining_seconds is not None:
        parts.append(f"about {duration(view.remaining_seconds)} left")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return a time as a person says it: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
