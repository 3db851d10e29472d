"""From a file to rows: decompressed, and read by what its content is, or else its ending."""

from __future__ import annotations

import bz2
import gzip
import importlib
import io
import json
import lzma
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from isoflop.fit.tables.lines import Rows, check_width, find_header, rows_of, separated
from isoflop.fit.tables.names import recognised

LARGEST = 100_000_000
"""Bytes of a table, decompressed: more would take gigabytes of memory."""
_JSON = (".json", ".jsonl", ".ndjson")
_ARROW = (".parquet", ".feather", ".arrow")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")
_WRAPPERS = 3
"""Objects that a table in JSON may stand in."""
_DEEPEST = 20
Record = Mapping[Any, Any]


def read_rows(path: Path) -> Rows:
    """Return the rows of a file.

    Raises:
        ValueError: the file is missing, or no table that can be read; in one line.
    """
    inner = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    ending = inner.suffix.lower()
    try:
        data = content(path)
        if data.startswith((b"PAR1", b"ARROW1", b"FEA1")) or ending in _ARROW:
            return _arrow(data)
        if data.startswith(b"PK\x03\x04") or ending in (".xlsx", ".xlsm"):
            return _excel(data)
        decoded = _text(data)
        if ending in _JSON or re.match(r"\s*(?:\[\s*)?\{", decoded):
            return _json(decoded)
        return separated(decoded)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; expected a table of runs") from None
    except (OSError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())[:300]
        kind = ending[1:] or "a table"
        raise ValueError(f"{path} cannot be read as {kind} ({problem})") from None


def is_json_table(path: Path) -> bool:
    """Return whether a JSON file holds a table of runs, where it could also be a study."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return False
    try:
        value = json.loads(_text(content(path)))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(value, dict):
        return isinstance(value, list)
    return not {"variants", "budgets_flops", "scaling"} & value.keys()


def content(path: Path) -> bytes:
    """Return what a file holds, decompressed where its first bytes say that it is compressed.

    Raises:
        ValueError: it is too large, or the compressed data are damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = _limited(file)
    opened = next((one for magic, one in _OPENERS.items() if data.startswith(magic)), None)
    if opened is None:
        return data
    try:
        return _limited(opened(io.BytesIO(data)))
    except ValueError:
        raise
    except Exception as error:
        # Each library has its own errors.
        raise ValueError(f"its compressed data are damaged: {error}") from None


def _limited(file: IO[bytes]) -> bytes:
    data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST:,} bytes; expected a table of runs")
    return data


def _zstandard(raw: IO[bytes]) -> Any:
    zstandard = _package("zstandard", "zstd")
    return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)


_OPENERS: dict[bytes, Callable[[io.BytesIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _zstandard,
}


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(f"this needs {module}; pip install 'isoflop[{extra}]'") from None


def _text(data: bytes) -> str:
    """Return bytes as text with line feeds: UTF-8, UTF-16 or UTF-32, else the Western code page.

    Raises:
        ValueError: they are no text.
    """
    encoding = json.detect_encoding(data)
    try:
        decoded = data.decode(encoding)
    except UnicodeDecodeError as error:
        decoded = data.decode("cp1252", errors="replace")
        if encoding != "utf-8" or _CONTROLS.search(decoded):
            raise ValueError(f"it is no text: {error}") from None
    if "\0" in decoded:
        raise ValueError(f"it holds the byte 0 at character {decoded.index(chr(0)) + 1}: no text")
    return decoded.replace("\r\n", "\n").replace("\r", "\n")


def _arrow(data: bytes) -> Rows:
    """Return the rows of a Parquet, Feather or Arrow file, structures flattened."""
    pyarrow = _package("pyarrow", "parquet")
    raw = io.BytesIO(data)
    try:
        if data.startswith(b"PAR1"):
            table = _package("pyarrow.parquet", "parquet").read_table(raw)
        elif data.startswith((b"ARROW1", b"FEA1")):
            table = _package("pyarrow.feather", "parquet").read_table(raw)
        else:
            table = pyarrow.ipc.open_stream(raw).read_all()
        while any(pyarrow.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    check_width(table.num_columns)
    return Rows(table.to_pandas(ignore_metadata=True))


def _excel(data: bytes) -> Rows:
    """Return the rows of the sheet of a workbook that looks most like a table of runs."""
    openpyxl = _package("openpyxl", "excel")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(one.file_size for one in archive.infolist())
        if unpacked > LARGEST:
            raise ValueError(f"it unpacks to more than {LARGEST:,} bytes")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles, which do not matter here
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = {sheet.title: _cells(sheet) for sheet in book.worksheets}
    except ValueError:
        raise
    except Exception as error:
        # A parser of anyone's bytes raises what it likes.
        raise ValueError(f"it is no workbook: {type(error).__name__} {error}") from None
    headers = {title: found for title, lines in sheets.items() if (found := find_header(lines))}
    if not headers:
        raise ValueError("none of its sheets holds a table of two or more columns")
    title = max(headers, key=lambda one: headers[one][0])
    return rows_of(sheets[title], headers[title][1], f'sheet "{title}"' if len(sheets) > 1 else "")


def _cells(sheet: Any) -> list[list[Any]]:
    # A sheet may claim to be as wide and long as sheets can be.
    sheet.reset_dimensions()
    return [
        [cell.strip() if isinstance(cell, str) else cell for cell in row]
        for row in sheet.iter_rows(values_only=True)
    ]


def _json(text: str) -> Rows:
    """Return the rows of a text that is one JSON value, or has an object a line.

    Raises:
        ValueError: it is neither, holds no rows, or several tables.
    """
    try:
        value = json.loads(text)
    except ValueError:
        return Rows(_flattened(_json_lines(text)))
    found = _tables_in(value)
    if not found and isinstance(value, dict) and recognised(value):
        found = {"": [value]}
    if len(found) != 1:
        names = list(found)
        raise ValueError(
            f"it holds the tables {names}; expected one" if names else "it holds no list of runs"
        )
    ((key, records),) = found.items()
    return Rows(_flattened(records), f'its "{key}"' if key else "")


def _json_lines(text: str) -> list[Record]:
    # Lines of JSON end in a line feed alone: other ends of lines may stand in its strings.
    records: list[Record] = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            record = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
        if isinstance(record, dict):
            records.append(record)
        elif record is not None:
            raise ValueError(f"line {number} is not a JSON object")
    return records


def _tables_in(value: Any, key: str = "", wrappers: int = _WRAPPERS) -> dict[str, Sequence[Record]]:
    """Return the tables in a JSON value, by the key that each stands under.

    These are lists of objects, and objects of columns, each a list or an object of its rows.
    """
    if isinstance(value, list):
        rows = all(isinstance(one, dict) for one in value) and (value or not key)
        return {key: value} if rows else {}
    if not isinstance(value, dict):
        return {}
    columns = list(value.values())
    lists = [one for one in columns if isinstance(one, list)]
    even = len(lists) == len(columns) > 1 and len(set(map(len, lists))) == 1
    objects = any(isinstance(cell, dict) for one in lists for cell in one[:1])
    known = all(isinstance(one, (list, dict)) for one in columns) and recognised(value) >= 2
    if known or (even and not objects):
        return {key: pd.DataFrame(value, dtype=object).to_dict("records")}
    found: dict[str, Sequence[Record]] = {}
    for name, inside in value.items() if wrappers else ():
        found |= _tables_in(inside, f"{key}.{name}" if key else name, wrappers - 1)
    return found


def _flattened(records: Sequence[Record]) -> pd.DataFrame:
    flat = [dict(_flat(record)) for record in records]
    columns = dict.fromkeys(name for record in flat for name in record)
    check_width(len(columns))
    return pd.DataFrame(flat, columns=list(columns), dtype=object)


def _flat(record: Record, before: str = "", depth: int = 0) -> Iterable[tuple[str, Any]]:
    """Yield names and values, those of objects in objects with dots between their names."""
    for name, value in record.items():
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from _flat(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}", value
