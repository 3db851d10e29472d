"""Tables of files that know the types of their cells: Parquet, Feather, Arrow and Excel."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import pandas as pd

from isoflop.fit.tables.files.content import LARGEST
from isoflop.fit.tables.files.grid import MOST_COLUMNS, Header, Rows, find_header, rows_of

MOST_CELLS = 20_000_000


def parquet(data: bytes) -> Rows:
    """Return the rows of a Parquet file; a ValueError where it is none."""

    def read() -> Any:
        from pyarrow import parquet as files

        return files.read_table(io.BytesIO(data))

    return _arrow(read)


def feather(data: bytes) -> Rows:
    """Return the rows of a Feather or Arrow file; a ValueError where it is none."""

    def read() -> Any:
        import pyarrow
        from pyarrow import feather as files

        if data.startswith((b"ARROW1", b"FEA1")):
            return files.read_table(io.BytesIO(data))
        return pyarrow.ipc.open_stream(io.BytesIO(data)).read_all()

    return _arrow(read)


def excel(data: bytes) -> Rows:
    """Return the rows of the sheet of a workbook that looks most like a table of runs.

    Raises:
        ValueError: it is no workbook, is too large, or openpyxl is missing.
    """
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
            sheets = {sheet.title: _lines(sheet) for sheet in book.worksheets}
    except ValueError:
        raise
    except Exception as error:
        # A parser of anyone's bytes raises what it likes.
        raise ValueError(f"it is no workbook: {type(error).__name__} {error}") from None
    best: tuple[Header, str] | None = None
    for title, lines in sheets.items():
        found = find_header(lines)
        if found and (best is None or found.recognised > best[0].recognised):
            best = (found, title)
    if best is None:
        raise ValueError("none of its sheets holds a table of two or more columns")
    header, title = best
    return rows_of(sheets[title], header, f'sheet "{title}"' if len(sheets) > 1 else "")


def _lines(sheet: Any) -> list[list[Any]]:
    # A sheet may claim to be as wide and long as sheets can be.
    sheet.reset_dimensions()
    lines = []
    cells = 0
    for row in sheet.iter_rows(values_only=True):
        line = [cell.strip() if isinstance(cell, str) else cell for cell in row]
        while line and line[-1] in (None, ""):
            line.pop()
        cells += len(line) + 1
        if cells > MOST_CELLS:
            raise ValueError(f"it has more than {MOST_CELLS:,} cells")
        lines.append(line)
    return lines


def _arrow(read: Callable[[], Any]) -> Rows:
    try:
        import pyarrow
    except ImportError:
        raise ValueError("Parquet needs pyarrow; pip install 'isoflop[parquet]'") from None
    try:
        table = read()
        while any(pyarrow.types.is_struct(field.type) for field in table.schema):
            table = table.flatten()
        if table.num_columns > MOST_COLUMNS:
            raise ValueError(f"it has {table.num_columns:,} columns; expected up to {MOST_COLUMNS}")
        names = [str(name) for name in table.column_names]
        distinct = [
            n if names.index(n) == i else f"{n} (column {i + 1})" for i, n in enumerate(names)
        ]
        frame: pd.DataFrame = table.rename_columns(distinct).to_pandas(ignore_metadata=True)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    return Rows(frame, "")
