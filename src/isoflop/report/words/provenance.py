"""What a reader must know about how the runs behind a page were made, and what is mixed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

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


def environments(records: Sequence[RunRecord]) -> dict[str, Counter[str]]:
    """Return each property of environments in words, its values and how many runs have them.

    A value tells, too, what it was after a run went on elsewhere. A property that no record tells
    is as usual, and left out.
    """
    told = {name for record in records for name in record.environment.model_dump()}
    return {
        _WORDS.get(name, name): Counter(
            _THEN.join(
                dict.fromkeys(_shown(one, name) for one in (run.environment, *run.resumed_under))
            )
            for run in records
        )
        for name in Environment.model_fields
        if name in told
    }


def mixed_environments(records: Sequence[RunRecord]) -> dict[str, Counter[str]]:
    """Return what differs between the environments of runs, and between their data."""
    data = Counter(record.data_sha256[:_SHORT] for record in records)
    found = {**environments(records), "data (SHA-256)": data}
    return {
        what: values
        for what, values in found.items()
        if len(values) > 1 or any(_THEN in value for value in values)
    }


def counted(values: Mapping[str, int]) -> str:
    """Return each value with its number of runs, in words, the commonest first."""
    ordered = Counter(values).most_common()
    return ", ".join(f"{value} ({n:,} run{'s' if n != 1 else ''})" for value, n in ordered)


def _shown(environment: Environment, name: str) -> str:
    value = getattr(environment, name)
    if value is None or isinstance(value, bool):
        return {None: "as usual", True: "yes", False: "no"}[value]
    return str(value)[:_SHORT] if name == "code" else str(value)
