"""From a file to rows: the content tells the format, and the ending where that does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from isoflop.fit.tables.files.content import COMPRESSED, content, text
from isoflop.fit.tables.files.grid import Rows
from isoflop.fit.tables.files.json_rows import json_lines, json_value
from isoflop.fit.tables.files.separated import check_lines, separated
from isoflop.fit.tables.files.typed import excel, feather, parquet

LINES = (".jsonl", ".ndjson")
TYPED = (".parquet", ".feather", ".arrow", ".xlsx")
ENDINGS = (".csv", ".tsv", ".txt", ".dat", ".md", ".json", *LINES, *TYPED)
_TYPED = {
    ".parquet": parquet,
    ".feather": feather,
    ".arrow": feather,
    ".xlsx": excel,
    ".xlsm": excel,
}
_MAGIC = {b"PAR1": parquet, b"ARROW1": feather, b"FEA1": feather, b"PK\x03\x04": excel}
_UNREADABLE = (".xls", ".ods", ".npz", ".npy", ".pkl", ".pickle", ".h5", ".hdf5", ".db", ".sqlite")


def read_rows(path: Path) -> Rows:
    """Return the rows of a file.

    Raises:
        ValueError: the file is missing, or no table that can be read; in one line.
    """
    ending = _ending(path)
    if ending in _UNREADABLE:
        raise ValueError(f"{path} ends in {ending!r}; expected one of {', '.join(ENDINGS)}")
    try:
        return _read(content(path), ending)
    except (OSError, ValueError, RecursionError, UnicodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{path} does not exist; expected a table of runs") from None
        problem = " ".join(str(error).split())[:300]
        kind = ending[1:] or "a table"
        raise ValueError(f"{path} cannot be read as {kind} ({problem})") from None


def is_json_table(path: Path) -> bool:
    """Return whether a JSON file holds a table of runs, where it could also be a study."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        value = json.loads(text(content(path)))
    except (OSError, ValueError, RecursionError):
        return False
    if isinstance(value, dict) and {"variants", "budgets_flops", "scaling"} & value.keys():
        return False
    try:
        json_value(value)
    except (ValueError, RecursionError):
        return isinstance(value, list)
    return True


def _read(data: bytes, ending: str) -> Rows:
    for magic, reader in _MAGIC.items():
        if data.startswith(magic):
            return reader(data)
    if ending in _TYPED:
        return _TYPED[ending](data)
    decoded = text(data)
    if ending in (".json", *LINES) or decoded.lstrip()[:1] in ("[", "{"):
        value = _json(decoded)
        if _is_whole(value, decoded, ending):
            return json_value(value)
        first = decoded.lstrip().partition("\n")[0]
        if ending in (".json", *LINES) or isinstance(_json(first), dict):
            return json_lines(decoded)
    check_lines(decoded)
    return separated(decoded)


def _json(decoded: str) -> Any:
    """Return the value that a text is, None where it is none or has more behind it."""
    try:
        return json.loads(decoded)
    except ValueError:
        return None


def _is_whole(value: Any, decoded: str, ending: str) -> bool:
    """Return whether a text is one JSON value, rather than lines of them."""
    if ending not in LINES:
        return value is not None
    if isinstance(value, dict):
        return "\n" in decoded.strip()
    return isinstance(value, list) and len(value) > 0 and isinstance(value[0], dict)


def _ending(path: Path) -> str:
    """Return the ending of a path without that of its compression, in lower case."""
    inner = path.with_suffix("") if path.suffix.lower() in COMPRESSED else path
    return inner.suffix.lower()
