"""What a person sees of a study that is being trained: lines, the last ones anew on a terminal."""

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
"""Runs under way that are told of."""


class Display:
    """Tells each thing that happens in a line, and how the runs go in one now and then; on a
    terminal in a few that are drawn anew in their place.
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
        """Print a line, above those that are drawn anew."""
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
        """Draw anew what runs and how it goes, or print it in a line.

        In a log the first line waits for the first step.
        """
        running, (done, *rest) = _running(view), _whole(view)
        if self._live.is_started:
            lines = [*running, " | ".join([done, *rest])]
            self._live.update(Text("\n".join(map(quoted, lines))), refresh=True)
        elif self._shown == -math.inf and not any(one.progress for one in view.going):
            return
        else:
            told = [f"running: {'; '.join(running)}"] if running else []
            self.say(" | ".join([done, *told, *rest]))
        self._shown = self._clock()


def _running(view: View) -> list[str]:
    """Return what is running, and where that stands."""
    more = len(view.going) - NAMED
    named = [_standing(one) for one in view.going[:NAMED]]
    return [*named, f"and {more} more"] if more > 0 else named


def _whole(view: View) -> list[str]:
    """Return how many runs are done of those expected, who else has some, and the time left."""
    told = [f"{view.done} of {view.expected} runs done"]
    if view.elsewhere:
        told.append(f"{view.elsewhere} in another process")
    if view.remaining_seconds is not None:
        told.append(f"about {duration(view.remaining_seconds)} left")
    return told


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
