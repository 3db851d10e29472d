"""Attempts at a run and how they ended: a line when one begins, a line when it ends."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from isoflop import storage
from isoflop.config import Environment

Ending = Literal["preempted", "failed"]
"""Stopped as asked, with a checkpoint; or crashed, hung or out of memory."""


@dataclass(frozen=True)
class Attempt:
    """One start of a run."""

    number: int
    """From 1."""
    step: int
    """Of the checkpoint that it went on from; 0 at a fresh start."""
    ending: Ending | None = None
    """None while it is under way, where it ended with the run's record, and where it was killed
    with nobody left to tell."""
    reason: str | None = None
    """Why it failed."""
    changed: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the environment that were not as pinned, with the values they had."""


def read_attempts(path: Path) -> list[Attempt]:
    """Return the attempts in `path`, in order; corrupt lines are left out with a warning.

    A torn last line is none: it is what a power cut leaves, and the next one to write cuts it.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    rows = [row for _, row in storage.scan_json_lines(data[: data.rfind(b"\n") + 1])]
    found: dict[int, Attempt] = {}
    corrupt = 0
    for row in rows:
        match row:
            case {"attempt": int(number), "began_at_step": int(step), **rest} if (
                changed := _changed(rest)
            ) is not None:
                found[number] = Attempt(number, step, changed=changed)
            case {"attempt": int(number), "ended": "preempted" | "failed" as ending, **rest} if (
                number in found
            ):
                reason = rest.get("reason")
                found[number] = replace(
                    found[number], ending=ending, reason=None if reason is None else str(reason)
                )
            case _:
                corrupt += 1
    if corrupt:
        warnings.warn(f"{path}: corrupt lines left out: {corrupt}", stacklevel=2)
    return [found[number] for number in sorted(found)]


def _changed(row: Mapping[Any, Any]) -> Mapping[str, Any] | None:
    """Return what a line tells of the environment; None where it is nothing of the kind."""
    match row.get("changed", {}):
        case dict(changed) if all(
            name in Environment.model_fields and isinstance(value, str | int)
            for name, value in changed.items()
        ):
            return changed
    return None


def without_progress(attempts: Sequence[Attempt]) -> list[Attempt]:
    """Return the last attempts, as far back as they began from the same checkpoint."""
    return list(takewhile(lambda one: one.step == attempts[-1].step, reversed(attempts)))
