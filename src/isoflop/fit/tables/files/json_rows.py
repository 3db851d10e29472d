"""Tables as JSON: lines of objects, lists of them, columns, and what wraps these."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from isoflop.fit.tables.files.lines import MOST_COLUMNS, Rows
from isoflop.fit.tables.names import recognised

_DEEPEST = 20
_WRAPPERS = 3
Record = Mapping[str, Any]


def json_rows(text: str, *, lines: bool) -> Rows:
    """Return the rows of a text that is one JSON value, or has an object a line.

    Args:
        text: of a file.
        lines: an object alone is a row, by the ending of the file.

    Raises:
        ValueError: it is neither, holds no rows, or several tables.
    """
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if value is None or (lines and isinstance(value, dict) and "\n" not in text.strip()):
        return Rows(_table(list(_lines(text))))
    found = tables_in(value)
    if len(found) != 1:
        names = list(found)
        raise ValueError(
            f"it holds the tables {names}; expected one" if names else "it holds no list of runs"
        )
    ((key, records),) = found.items()
    return Rows(_table(records), f'its "{key}"' if key else "")


def tables_in(value: Any, key: str = "", wrappers: int = _WRAPPERS) -> dict[str, Sequence[Record]]:
    """Return the tables in a JSON value, by the key that each stands under.

    These are lists of objects, and objects of columns or of runs by name.
    """
    if isinstance(value, list):
        rows = all(isinstance(one, dict) for one in value) and (value or not key)
        return {key: value} if rows else {}
    if not isinstance(value, dict) or not value:
        return {}
    records = _columns(value)
    if records is not None:
        return {key: records}
    found: dict[str, Sequence[Record]] = {}
    for name, inside in value.items() if wrappers else ():
        found |= tables_in(inside, f"{key}.{name}" if key else name, wrappers - 1)
    return found


def _columns(value: Record) -> Sequence[Record] | None:
    """Return the records of an object that is a table by columns or by the names of its runs."""
    heads, data = value.get("columns"), value.get("data")
    if (
        isinstance(heads, list)
        and isinstance(data, list)
        and all(isinstance(row, list) and len(row) == len(heads) for row in data)
    ):
        return [dict(zip(map(str, heads), row, strict=True)) for row in data]
    insides = list(value.values())
    if len(insides) > 1 and all(isinstance(one, list) for one in insides):
        lists = any(isinstance(one, dict) for column in insides for one in column[:1])
        if len({len(one) for one in insides}) == 1 and not lists:
            return [dict(zip(value, row, strict=True)) for row in zip(*insides, strict=True)]
    if len(insides) > 1 and all(isinstance(one, dict) for one in insides):
        if recognised(value) >= 2:
            keys = dict.fromkeys(key for one in insides for key in one)
            return [{name: one.get(key) for name, one in value.items()} for key in keys]
        if recognised(insides[0]) >= 2:
            return [{"run": name, **one} for name, one in value.items()]
    return None


def _lines(text: str) -> Iterable[Record]:
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
        yield record


def _table(records: Sequence[Record]) -> pd.DataFrame:
    flat = [dict(_flat(record)) for record in records]
    columns = dict.fromkeys(name for record in flat for name in record)
    if len(columns) > MOST_COLUMNS:
        raise ValueError(f"it has {len(columns):,} names; expected up to {MOST_COLUMNS:,}")
    return pd.DataFrame(flat, columns=list(columns), dtype=object)


def _flat(record: Record, before: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Yield names and values, those of objects in objects with dots between their names."""
    for name, value in record.items():
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from _flat(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}", value
