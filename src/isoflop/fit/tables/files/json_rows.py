"""Tables as JSON: lines of objects, lists of them, columns, and what wraps these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from isoflop.fit.tables.files.grid import MOST_COLUMNS, Rows
from isoflop.fit.tables.names import known

_DEEPEST = 20
_WRAPPERS = 3
Record = Mapping[str, Any]


def json_lines(text: str) -> Rows:
    """Return the rows of a text with a JSON object a line.

    Raises:
        ValueError: a line is none, by its number.
    """
    records = []
    # Lines of JSON end in a line feed alone: other ends of lines may stand in its strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is not a JSON object")
        records.append(record)
    return Rows(_table(records), "")


def json_value(value: Any) -> Rows:
    """Return the rows that a JSON value holds.

    These are a list of objects, an object of columns or of runs by name, or either of them in an
    object of which they are the only such value.

    Raises:
        ValueError: it holds no rows, or several tables.
    """
    found = list(_found(value, "", _WRAPPERS))
    if len(found) != 1:
        names = [key for key, _ in found]
        raise ValueError(
            f"it holds the tables {names}; expected one" if names else "it holds no list of runs"
        )
    key, records = found[0]
    return Rows(_table(records), f'its "{key}"' if key else "")


def _found(value: Any, key: str, wrappers: int) -> Iterator[tuple[str, Sequence[Record]]]:
    """Yield the tables in a value, with the key that each stands under."""
    if isinstance(value, list):
        if value and all(isinstance(one, dict) for one in value):
            yield key, value
        elif not value and not key:
            yield key, []
        return
    if not isinstance(value, dict) or not value:
        return
    records = _columns(value)
    if records is not None:
        yield key, records
    elif wrappers:
        for name, inside in value.items():
            yield from _found(inside, f"{key}.{name}" if key else name, wrappers - 1)


def _columns(value: Record) -> Sequence[Record] | None:
    """Return the records of an object that is a table by columns or by the names of its runs."""
    insides = list(value.values())
    heads, data = value.get("columns"), value.get("data")
    if isinstance(heads, list) and isinstance(data, list):
        rows = [row for row in data if isinstance(row, list) and len(row) == len(heads)]
        if len(rows) == len(data):
            return [dict(zip(map(str, heads), row, strict=True)) for row in rows]
    if len(insides) > 1 and all(isinstance(one, list) for one in insides):
        lengths = {len(one) for one in insides}
        lists = any(isinstance(one, dict) for column in insides for one in column[:1])
        if len(lengths) == 1 and not lists:
            return [dict(zip(value, row, strict=True)) for row in zip(*insides, strict=True)]
    if len(insides) > 1 and all(isinstance(one, dict) for one in insides):
        if sum(bool(known(name)) for name in value) >= 2:
            keys = dict.fromkeys(key for one in insides for key in one)
            return [{name: one.get(key) for name, one in value.items()} for key in keys]
        if sum(bool(known(name)) for name in insides[0]) >= 2:
            return [{"run": name, **one} for name, one in value.items()]
    return None


def _table(records: Sequence[Record]) -> pd.DataFrame:
    flat = [dict(_flat(record)) for record in records]
    columns = dict.fromkeys(name for record in flat for name in record)
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"it has {len(columns):,} names; expected up to {MOST_COLUMNS:,}")
    return pd.DataFrame(flat, columns=list(columns), dtype=object)


def _flat(record: Record, before: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Yield names and values, those of objects in objects with dots between their names."""
    for name, value in record.items():
        path = f"{before}{name}"
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from _flat(value, f"{path}.", depth + 1)
        else:
            yield path, value
