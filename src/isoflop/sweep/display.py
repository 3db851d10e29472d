"""What a person sees of a study that is being trained: a live table, or plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from isoflop.config import RunRecord
from isoflop.config.problems import quoted
from isoflop.costs import parameters
from isoflop.planning import PlannedRun
from isoflop.sweep.progress import Going, View

REDRAW_SECONDS = 0.25


class Display:
    """Shows a live table on a terminal; everywhere, one line for each thing that happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        # Drawn by the scheduler's own loop: a thread would have to be kept out of signals' way.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._drawn = 0.0

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
        """Whether there is a table and it is time to draw it anew."""
        return self._live.is_started and time.monotonic() - self._drawn >= REDRAW_SECONDS

    def show(self, view: View) -> None:
        """Draw the table anew."""
        self._drawn = time.monotonic()
        self._live.update(Group(_table(view.going), _summary(view)), refresh=True)


def describe(run: PlannedRun) -> str:
    """Return the variant, size, budget and seed of a run."""
    size = parameters(run.config.model).total
    return (
        f"{run.variant}, {size:,} parameters, {run.budget_flops:.3g} FLOPs, seed {run.config.seed}"
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


def _summary(view: View) -> Text:
    parts = [f"{view.finished} finished", f"{len(view.going)} running", f"{view.left} left"]
    if view.diverged:
        parts.append(f"{view.diverged} diverged")
    if view.failed:
        parts.append(f"{view.failed} failed")
    if view.elsewhere:
        parts.append(f"{view.elsewhere} in another process")
    if view.flops_per_second:
        parts.append(f"{view.flops_per_second / 1e9:,.1f} GFLOP/s")
    if view.remaining_seconds is not None:
        parts.append(f"about {duration(view.remaining_seconds)} to go as planned so far")
    return Text(", ".join(parts))


def duration(seconds: float) -> str:
    """Return a time as a person says it: 42 s, 3 min 05 s, 2 h 07 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
