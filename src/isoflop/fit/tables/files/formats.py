"""From a file to rows: the content tells the format, and the ending where that does not."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

from isoflop.fit.tables.files.content import LARGEST, content, text
from isoflop.fit.tables.files.json_rows import json_rows, tables_in
from isoflop.fit.tables.files.lines import MOST_COLUMNS, Rows, find_header, rows_of, separated

_LINES = (".jsonl", ".ndjson")
_ARROW = (".parquet", ".feather", ".arrow")
_TEXT = (".csv", ".tsv", ".txt", ".dat", ".md", ".json")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
_UNREADABLE = (".xls", ".ods", ".npz", ".npy", ".pkl", ".pickle", ".h5", ".hdf5", ".db", ".sqlite")
_MOST_CELLS = 20_000_000


def read_rows(path: Path) -> Rows:
    """Return the rows of a file.

    Raises:
        ValueError: the file is missing, or no table that can be read; in one line.
    """
    inner = path.with_suffix("") if path.suffix.lower() in _COMPRESSED else path
    ending = inner.suffix.lower()
    if ending in _UNREADABLE:
        known = ", ".join((*_TEXT, *_LINES, *_ARROW, ".xlsx"))
        raise ValueError(f"{path} ends in {ending!r}; expected one of {known}")
    try:
        return _read(content(path), ending)
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
        value = json.loads(text(content(path)))
        if isinstance(value, dict) and {"variants", "budgets_flops", "scaling"} & value.keys():
            return False
        return isinstance(value, list) or len(tables_in(value)) == 1
    except (OSError, ValueError, RecursionError):
        return False


def _read(data: bytes, ending: str) -> Rows:
    if data.startswith((b"PAR1", b"ARROW1", b"FEA1")) or ending in _ARROW:
        return _arrow(data)
    if data.startswith(b"PK\x03\x04") or ending in (".xlsx", ".xlsm"):
        return _excel(data)
    decoded = text(data)
    if ending in (".json", *_LINES) or re.match(r"\s*(?:\[\s*)?\{", decoded):
        return json_rows(decoded, lines=ending in _LINES)
    return separated(decoded)


def _arrow(data: bytes) -> Rows:
    """Return the rows of a Parquet, Feather or Arrow file, structures flattened."""
    try:
        import pyarrow
        from pyarrow import feather, parquet
    except ImportError:
        raise ValueError("Parquet needs pyarrow; pip install 'isoflop[parquet]'") from None
    raw = io.BytesIO(data)
    try:
        if data.startswith(b"PAR1"):
            table = parquet.read_table(raw)
        elif data.startswith((b"ARROW1", b"FEA1")):
            table = feather.read_table(raw)
        else:
            table = pyarrow.ipc.open_stream(raw).read_all()
        while any(pyarrow.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        if table.num_columns > MOST_COLUMNS:
            raise ValueError(f"it has {table.num_columns:,} columns; expected up to {MOST_COLUMNS}")
        return Rows(table.to_pandas(ignore_metadata=True))
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None


def _excel(data: bytes) -> Rows:
    """Return the rows of the sheet of a workbook that looks most like a table of runs."""
    try:
        import openpyxl
    except ImportError:
        raise ValueError("Excel needs openpyxl; pip install 'isoflop[excel]'") from None
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
    title = max(headers, key=lambda one: headers[one].recognised)
    return rows_of(sheets[title], headers[title], f'sheet "{title}"' if len(sheets) > 1 else "")


def _cells(sheet: Any) -> list[list[Any]]:
    # A sheet may claim to be as wide and long as sheets can be.
    sheet.reset_dimensions()
    lines = []
    cells = 0
    for row in sheet.iter_rows(values_only=True):
        line = [cell.strip() if isinstance(cell, str) else cell for cell in row]
        while line and line[-1] in (None, ""):
            line.pop()
        cells += len(line) + 1
        if cells > _MOST_CELLS:
            raise ValueError(f"it has more than {_MOST_CELLS:,} cells")
        lines.append(line)
    return lines
