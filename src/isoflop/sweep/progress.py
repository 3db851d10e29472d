"""What there is to see of a study that is being trained, and how fast it is going."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from isoflop.planning import PlannedRun
from isoflop.sweep.worker import Step

WINDOW_SECONDS = 120.0
"""Throughput is measured over this time: long enough for evaluation and compiling to count."""


class Meter:
    """Measures FLOP/s over the last two minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._spent: deque[tuple[float, float]] = deque()

    def add(self, flops: float) -> None:
        """Count FLOPs that were spent since."""
        self._spent.append((self._clock(), flops))

    @property
    def flops_per_second(self) -> float:
        """Training FLOP/s of all runs together; 0 while nothing was trained."""
        now = self._clock()
        while self._spent and self._spent[0][0] < now - WINDOW_SECONDS:
            self._spent.popleft()
        elapsed = min(WINDOW_SECONDS, now - self._started)
        return sum(flops for _, flops in self._spent) / elapsed if elapsed > 0 else 0.0


@dataclass(frozen=True)
class Going:
    """A run under way."""

    run: PlannedRun
    step: Step | None
    """None until its first step is done."""


@dataclass(frozen=True)
class View:
    """What there is to see of a study that is being trained."""

    finished: int
    diverged: int
    failed: int
    going: tuple[Going, ...]
    left: int
    """Runs planned so far that nobody works on."""
    elsewhere: int
    """Runs that another process works on."""
    added: int
    """Runs that the grid will probably add to those planned so far."""
    flops_per_second: float
    remaining_seconds: float | None
    """Time until all these are done; None while nothing was measured."""

    @property
    def done(self) -> int:
        """Runs that have a record."""
        return self.finished + self.diverged + self.failed

    @property
    def expected(self) -> int:
        """Runs that the study will probably have."""
        return self.done + len(self.going) + self.left + self.elsewhere + self.added
