"""What a person sees of a study that is being trained: lines, the last one anew on a terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from isoflop.config import RunRecord
from isoflop.costs import parameters
from isoflop.notation import duration
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
    """Tells each thing that happens in a line, and how the runs go in a line now and then, which is
    drawn anew in its place on a terminal.

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

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Print a line, above the one that is drawn anew."""
        self._console.print(Text(quoted(text)), soft_wrap=True)

    def recorded(self, run: PlannedRun, record: RunRecord, done: int, total: int) -> None:
        """Tell the outcome of a run, the `done`th of `total` that the grid knows of."""
        outcome = f"{record.state}: {record.reason}"
        if record.state == "finished":
            found = record.evaluation("validation")
            loss = "no validation loss" if found is None else f"validation loss {found.loss:.4f}"
            if found and found.bits_per_byte and record.config.data.tokenizer != "bytes":
                loss += f", {found.bits_per_byte:.4f} bits/byte"
            outcome = f"{loss}, {duration(record.seconds)}"
        self.say(f"[{done}/{total}] {describe(run)}: {outcome}")

    @property
    def is_due(self) -> bool:
        """Whether it is time to show anew how the runs go."""
        every = REDRAW_SECONDS if self._live.is_started else LINE_SECONDS
        return self._clock() - self._shown >= every

    def show(self, view: View) -> None:
        """Draw or print the line; in a log the first one waits for the first step."""
        if self._live.is_started:
            self._live.update(Text(quoted(_line(view))), refresh=True)
        elif self._shown == -math.inf and not any(one.progress for one in view.going):
            return
        else:
            self.say(_line(view))
        self._shown = self._clock()


def _line(view: View) -> str:
    """Return how the runs go: done of expected, what is running, and the time left."""
    parts = [f"{view.done} of {view.expected} runs done"]
    if view.going:
        running = [_standing(one) for one in view.going[:NAMED]]
        if len(view.going) > NAMED:
            running.append(f"and {len(view.going) - NAMED} more")
        parts.append(f"running: {'; '.join(running)}")
    if view.elsewhere:
        parts.append(f"{view.elsewhere} in another process")
    if view.remaining_seconds is not None:
        parts.append(f"about {duration(view.remaining_seconds)} left")
    return " | ".join(parts)


def _standing(one: Going) -> str:
    size = f"{one.run.variant}, {parameters(one.run.config.model).total:,} parameters"
    if one.progress is None:
        return f"{size}, starting"
    now = one.progress
    return (
        f"{size}, step {now.step:,} of {now.steps:,}, loss {now.loss:.3f}, "
        f"{now.tokens_per_second:,.0f} tokens/s"
    )


def describe(run: PlannedRun) -> str:
    """Return the variant, size, budget and seed of a run."""
    size = parameters(run.config.model).total
    return (
        f"{run.variant}, {size:,} parameters, {short_flops(run.budget_flops)} FLOPs, "
        f"seed {run.config.seed}"
    )
