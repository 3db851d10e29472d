"""What a reader must know about how the runs behind a page were made, and what is mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from isoflop.config import Environment, RunRecord

_ENVIRONMENT_WORDS = {
    "isoflop": "version of isoflop",
    "torch": "version of torch",
    "python": "version of Python",
    "machine": "machine",
    "device": "device",
    "threads": "threads",
    "compiled": "compiled model",
    "code": "code fingerprint",
}

_THEN = ", then "


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
    return tuple(
        (words, next(iter(values)))
        for words, values in _environment_values(records)
        if len(values) == 1
    )


def mixed_environments(records: Sequence[RunRecord]) -> tuple[Mixed, ...]:
    """Return what differs between the environments of `records`, and between their data."""
    differing = [
        Mixed(words, tuple(values.most_common()))
        for words, values in _environment_values(records)
        if len(values) > 1 or any(_THEN in value for value in values)
    ]
    data = Counter(_short(record.data_sha256) for record in records)
    if len(data) > 1:
        differing.append(Mixed("data (SHA-256)", tuple(data.most_common())))
    return tuple(differing)


def _environment_values(records: Sequence[RunRecord]) -> list[tuple[str, Counter[str]]]:
    return [
        (
            _ENVIRONMENT_WORDS.get(name, name),
            Counter(_environment_text(name, record) for record in records),
        )
        for name in Environment.model_fields
        if records
    ]


def _environment_text(name: str, record: RunRecord) -> str:
    """Return a property of a run's environment, and what it was after the run went on elsewhere."""
    found = []
    for environment in (record.environment, *record.resumed_under):
        value = getattr(environment, name)
        if isinstance(value, bool):
            found.append("yes" if value else "no")
        else:
            found.append(_short(value) if name == "code" else str(value))
    return _THEN.join(dict.fromkeys(found))


def _short(digest: str) -> str:
    return digest[:12]
