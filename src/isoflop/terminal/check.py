"""What `isoflop check` prints: a line for each check, its hint where it failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isoflop.check import Outcome
from isoflop.terminal.tables import amount


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """Yield how a check went, and what to do where it failed."""
    name = outcome.name if outcome.precision is None else f"{outcome.name}, {outcome.precision}"
    parts = [outcome.compared]
    if outcome.difference is not None and outcome.tolerance is not None:
        parts.append(f"apart by {outcome.difference:.1e}, at most {outcome.tolerance:.1e}")
    if outcome.note:
        parts.append(outcome.note)
    state = "ok  " if outcome.passed else "FAIL"
    yield f"{state}  {name}: {'; '.join(parts)} ({amount(outcome.seconds)})"
    if outcome.hint:
        yield f"      {outcome.hint}"


def summary(found: Sequence[Outcome]) -> str:
    """Return how many checks passed, and how long they took."""
    failed = sum(not outcome.passed for outcome in found)
    told = "all passed" if not failed else f"{failed} FAILED"
    seconds = sum(outcome.seconds for outcome in found)
    return f"{len(found)} checks in {amount(seconds)}: {told}"
