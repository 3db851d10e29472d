"""Finds workers that show no sign of life."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_LOOK_SECONDS = 2.0
"""Most of the time between two looks that counts. More means that the scheduler itself stood
still, as a paused process or a sleeping machine does, and then heard nothing of anybody."""


class Watchdog:
    """Counts for how long each worker was silent while somebody listened.

    Args:
        limit_seconds: silence after which a worker counts as hanging.
        clock: seconds, monotonic.
    """

    def __init__(self, limit_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit_seconds = limit_seconds
        self._clock = clock
        self._looked = clock()
        self._silent: dict[str, float] = {}

    def look(self) -> None:
        """Count the time since the last look, for all who are watched."""
        now = self._clock()
        passed = min(now - self._looked, LONGEST_LOOK_SECONDS)
        self._looked = now
        for name in self._silent:
            self._silent[name] += passed

    def heard(self, name: str) -> None:
        """Start watching `name`, or note a sign of life of it."""
        self._silent[name] = 0.0

    def forget(self, name: str) -> None:
        """Stop watching `name`."""
        self._silent.pop(name, None)

    @property
    def hanging(self) -> list[str]:
        """Those who were silent for too long."""
        return [name for name, silent in self._silent.items() if silent > self.limit_seconds]
