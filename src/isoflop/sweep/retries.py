"""How often a run is tried: what it left on disk says when to give up, whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.runs import Attempt, without_progress

FAILURES = 3
"""Failed attempts from one checkpoint after which a run counts as failed."""
LOST = 10
"""Attempts from one checkpoint that were killed with nobody left to tell why, after which it does.

A power cut and a kill of the scheduler are no fault of the run, so this is generous; but a run
for which the system kills everything, each time, must not go on for ever."""


@dataclass(frozen=True)
class Tries:
    """The attempts at a run since it gained a checkpoint."""

    failures: int
    lost: int
    reason: str | None
    """Of the last failure."""

    @property
    def verdict(self) -> str | None:
        """Why the run is not tried again; None where it is."""
        if self.failures >= FAILURES:
            return self.reason or "no reason was recorded"
        if self.lost >= LOST:
            return (
                f"killed {self.lost} times from the same checkpoint with nobody left to tell why; "
                "memory may have run out"
            )
        return None


def tries(attempts: Sequence[Attempt]) -> Tries:
    """Return what became of the last attempts; none of them is under way."""
    last = without_progress(attempts)
    failed = [one for one in last if one.ending == "failed"]
    return Tries(
        failures=len(failed),
        lost=sum(one.ending is None for one in last),
        reason=failed[0].reason if failed else None,
    )
