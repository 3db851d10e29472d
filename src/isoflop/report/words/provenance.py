"""What a reader must know about how the runs behind a page were made, and what is mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.config import Environment, RunRecord

_WORDS = {
    "isoflop": "version of isoflop",
    "torch": "version of torch",
    "python": "version of Python",
    "compiled": "compiled model",
    "code": "code fingerprint",
}
_THEN = ", then "
_SHORT = 12
"""Characters of a fingerprint that are shown."""


@dataclass(frozen=True)
class Mixed:
    """A property of the environment that differs between the runs of one study."""

    what: str
    values: tuple[tuple[str, int], ...]
    """Each value with the number of runs that have it, the commonest first."""

    @property
    def counted(self) -> list[str]:
        """Each value with its number of runs, in words."""
        return [f"{value} ({n:,} run{'s' if n != 1 else ''})" for value, n in self.values]


def environment_of(records: Sequence[RunRecord]) -> tuple[tuple[str, str], ...]:
    """Return (property, value) for what all `records` share of their environment."""
    shared = [(what, *values) for what, values in _environments(records) if len(values) == 1]
    return tuple((what, value) for what, value in shared)


def mixed_environments(records: Sequence[RunRecord]) -> tuple[Mixed, ...]:
    """Return what differs between the environments of `records`, and between their data."""
    data = Counter(record.data_sha256[:_SHORT] for record in records)
    return tuple(
        Mixed(what, tuple(values.most_common()))
        for what, values in (*_environments(records), ("data (SHA-256)", data))
        if len(values) > 1 or any(_THEN in value for value in values)
    )


def _environments(records: Sequence[RunRecord]) -> list[tuple[str, Counter[str]]]:
    """Return the properties in words, each with its values and how many runs have them.

    A value tells, too, what it was after a run went on elsewhere.
    """
    found = []
    told = {name for record in records for name in record.environment.model_dump()}
    for name in Environment.model_fields:
        if name not in told:  # as usual, and so not written
            continue
        counted: Counter[str] = Counter()
        for record in records:
            own = (_shown(one, name) for one in (record.environment, *record.resumed_under))
            counted[_THEN.join(dict.fromkeys(own))] += 1
        found.append((_WORDS.get(name, name), counted))
    return found


def _shown(environment: Environment, name: str) -> str:
    value = getattr(environment, name)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)[:_SHORT] if name == "code" else str(value)
