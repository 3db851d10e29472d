"""Tables as lines of cells: what parts these, where the header is, and which lines are no rows."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from isoflop.fit.tables.names import recognised
from isoflop.fit.tables.numbers import missing

MOST_COLUMNS = 10_000
LONGEST_LINE = 100_000
"""No person wrote a longer one, and a parser would take minutes for it."""
SEPARATORS: Mapping[str, str] = {
    ",": "commas",
    ";": "semicolons",
    "\t": "tabs",
    "|": "pipes",
    " ": "spaces",
}
"""What parts fields, in the order in which they are preferred, and what to call it."""
_SAMPLE = 300
"""Lines that tell what parts fields."""
_ABOVE = 50
"""Lines that may stand above a header."""
_RULE = re.compile(r"[\s|:+=-]*")
"""Lines between the header and the rows of a Markdown table."""

Line = Sequence[Any]


class Rows(NamedTuple):
    """The rows of a file, before anything is understood of them."""

    table: pd.DataFrame
    """A row per run; cells are text where the file has no types, and names may occur twice."""
    words: str = ""
    """How the file was read, such as `semicolons`; '' where nothing is to be said."""
    broken: Mapping[int, str] = {}
    """Of rows that have more fields than the header, counted from 0, the first such field."""


def separated(text: str) -> Rows:
    """Return the rows of a table as text; the separator is found.

    Raises:
        ValueError: the text is no table, has a line that is too long, or a quotation never ends.
    """
    lines = text.removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if len(line) > LONGEST_LINE:
            what = f"its line {number} is longer than {LONGEST_LINE:,} characters"
            raise ValueError(f"{what}; expected names of columns or a row")
    lines = [_uncommented(line) for line in lines]
    headers = {
        separator: found
        for separator in SEPARATORS
        if (found := find_header(_fields(lines[:_SAMPLE], separator, strict=False)))
    }
    if not headers:
        raise ValueError("it holds no table of two or more columns")
    separator = max(headers, key=lambda one: headers[one][0])
    return rows_of(_fields(lines, separator), headers[separator][1], SEPARATORS[separator])


def _uncommented(line: str) -> str:
    """Return a line, or nothing of a comment; a header may be written as one."""
    if not line.lstrip().startswith("#"):
        return line
    words = re.split(r"[,;|\s]+", line.strip(" \t#"))
    return line.lstrip(" \t#") if 2 <= len(words) <= 2 * recognised(words) else ""


def _fields(lines: Sequence[str], separator: str, *, strict: bool = True) -> list[list[str]]:
    if separator == " ":
        lines = [re.sub(r"[ \t]+", " ", line).strip() for line in lines]
    if separator == "|":
        lines = [line.strip().strip("|") for line in lines if not _RULE.fullmatch(line)]
    # In Markdown, names may stand in stars or backticks.
    around = "*` \t" if separator == "|" else None
    ended = (f"{line}\n" for line in lines)
    reader = csv.reader(ended, delimiter=separator, skipinitialspace=True, strict=strict)
    try:
        return [[cell.strip(around) for cell in line] for line in reader]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None


def find_header(lines: Sequence[Line]) -> tuple[float, int] | None:
    """Return how sure a header among lines is, and where it is; None where there is none.

    It is the first line of about as many fields as most lines have, two or more, and of these the
    one with most names that are known: titles above it have fewer fields, or none that are known.
    How sure is these names times the share of lines with as many fields: "Model size" between tabs
    has a space, but what parts it parts no row alike.
    """
    widths = [{len(_trimmed(line)), len(line)} for line in lines[:_SAMPLE] if _holds(line)]
    counted = Counter(map(min, widths))
    most = max(counted, key=lambda width: (counted[width], width), default=0)
    known = {}
    for at, line in enumerate(lines[:_ABOVE] if most > 1 else []):
        cells = _trimmed(line)
        if len(cells) >= max(2, most - 1) and sum(not missing(cell) for cell in cells) > 1:
            # A row may have a name of one column in a cell.
            known[at] = max(1, recognised(map(str, cells)))
    if not known:
        return None
    best = max(known, key=lambda at: known[at])
    own = len(_trimmed(lines[best])), len(lines[best])
    alike = sum(not one.isdisjoint(own) for one in widths)
    return known[best] * alike / len(widths), best


def rows_of(lines: Sequence[Line], header: int, words: str) -> Rows:
    """Return the rows below a header.

    A row may have fewer fields than the header, and empty ones beyond it. Where every row has one
    more and the first of each is text, or counts, these are names of rows.

    Raises:
        ValueError: every row has more fields than the header, and it is not clear which is which.
    """
    names = ["" if cell is None else str(cell) for cell in _trimmed(lines[header])]
    check_width(len(names))
    below = [_trimmed(line) for line in lines[header + 1 :] if _holds(line)]
    if below and all(len(line) > len(names) for line in below):
        counted = pd.to_numeric(pd.Series([line[0] for line in below]), errors="coerce")
        counts = counted.iloc[0] in (0, 1) and (counted.diff().iloc[1:] == 1).all()
        if not counts and counted.notna().any():
            raise ValueError(
                f"its rows have {len(below[0])} fields and its header has {len(names)} "
                f"({', '.join(names[:5])}, ...); expected a name for each"
            )
        names.insert(0, "")
    width = len(names)
    cells = [[*line[:width], *[None] * (width - len(line))] for line in below]
    beyond = [next((one for one in line[width:] if not missing(one)), None) for line in below]
    broken = {at: str(one)[:60] for at, one in enumerate(beyond) if one is not None}
    return Rows(pd.DataFrame(cells, columns=names, dtype=object), words, broken)


def check_width(columns: int) -> None:
    """Raise `ValueError` where a table has more columns than a person names."""
    if columns > MOST_COLUMNS:
        raise ValueError(f"it has {columns:,} columns; expected up to {MOST_COLUMNS:,}")


def _holds(line: Line) -> bool:
    return any(not missing(cell) for cell in line)


def _trimmed(line: Line) -> Line:
    """Return a line without the empty fields at its end."""
    end = len(line)
    while end and line[end - 1] in (None, ""):
        end -= 1
    return line[:end]
