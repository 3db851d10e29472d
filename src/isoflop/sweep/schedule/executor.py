"""What trains runs for the scheduler, wherever that is: the local pool is the first.

An executor starts runs, says what they tell, and ends them. What a run is tried for, and when, is
the scheduler's to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from isoflop.planning import PlannedRun

LOG = "log.txt"
"""File in the run folder that takes what the run's processes print."""

Ending = Literal["recorded", "interrupted", "claimed", "failed", "unwritable"]
"""How a worker ended: with a record, as asked, as another process has the run, by an exception,
or because the disk is full or broken, which is no fault of the run."""


@dataclass(frozen=True)
class Step:
    """Where the run stands."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


@dataclass(frozen=True)
class Warned:
    """A warning that the run gave."""

    text: str


@dataclass(frozen=True)
class Alive:
    """A sign of life while no step is made."""


@dataclass(frozen=True)
class Ended:
    """The last message of a worker that did not crash."""

    how: Ending
    reason: str = ""


Message = Step | Warned | Alive | Ended


class Executor(Protocol):
    """Trains some runs at a time."""

    @property
    def capacity(self) -> int:
        """Runs that are trained at a time."""

    def start(self, run: PlannedRun, folder: Path) -> None:
        """Start training a run in its folder; fewer than `capacity` are under way."""

    def poll(self, seconds: float) -> Sequence[tuple[str, Message]]:
        """Wait so long at most for what runs tell, and return it by run id.

        A run tells `Ended` last, whatever became of it; then it is no longer under way.
        """

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """Ask a run to save a checkpoint and end; or end it at once, and then it tells no more."""
