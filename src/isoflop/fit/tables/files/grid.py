"""From lines of cells to a table: where the header is, and which lines are none of its rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from isoflop.fit.tables.names import known
from isoflop.fit.tables.numbers import missing, number

MOST_COLUMNS = 10_000
_SAMPLE = 200
_ABOVE = 50
"""Lines that may stand above a header."""

Line = Sequence[Any]


@dataclass(frozen=True)
class Rows:
    """The rows of a file, before anything is understood of them."""

    table: pd.DataFrame
    """A row per run; cells are text where the file has no types."""
    words: str
    """How the file was read, such as `semicolons`; '' where nothing is to be said."""
    broken: tuple[tuple[int, str], ...] = ()
    """Rows that have more fields than the header, counted from 0, and their first such field."""


@dataclass(frozen=True)
class Header:
    """The line that names the columns."""

    line: int
    names: tuple[str, ...]
    recognised: int
    """Names that are known."""
    share: float
    """Of the lines that have as many fields as most."""


def find_header(lines: Sequence[Line]) -> Header | None:
    """Return the header among lines, None where these are no table of at least two columns.

    It is the first line of about as many fields as most lines have, and of these the one with most
    names that are known: titles above it have fewer fields, or none that are known.
    """
    sample = [line for line in lines[:_SAMPLE] if any(not missing(cell) for cell in line)]
    if not sample:
        return None
    lengths = Counter(len(_trimmed(line)) for line in sample)
    most = max(lengths, key=lambda length: (lengths[length], length))
    if most < 2:
        return None
    best: Header | None = None
    for at, line in enumerate(lines[:_ABOVE]):
        cells = _trimmed(line)
        if len(cells) < max(2, most - 1) or sum(not missing(cell) for cell in cells) < 2:
            continue
        names = tuple(str(cell).strip() if cell is not None else "" for cell in cells)
        recognised = sum(bool(known(name)) for name in names)
        if best is None or recognised > best.recognised:
            if best is not None and recognised < 2:
                continue
            alike = [len(one) == len(line) or len(_trimmed(one)) == len(cells) for one in sample]
            share = sum(alike) / len(sample)
            best = Header(at, names, recognised, share)
    return best


def rows_of(lines: Sequence[Line], header: Header, words: str) -> Rows:
    """Return the rows below a header.

    A row may have fewer fields than the header, and empty ones beyond it. Where every row has one
    more and the first of each is text, or counts, these are names of rows.

    Raises:
        ValueError: every row has more fields than the header, and it is not clear which is which.
    """
    names = list(header.names)
    if len(names) > MOST_COLUMNS:
        raise ValueError(f"it has {len(names):,} columns; expected up to {MOST_COLUMNS:,}")
    below = [line for line in lines[header.line + 1 :] if any(not missing(one) for one in line)]
    # Comments; a first column may number its rows #1, #2.
    below = [one for one in below if len(one) >= len(names) or not str(one[0]).startswith("#")]
    wider = [line for line in below if len(_trimmed(line)) > len(names)]
    if below and len(wider) == len(below):
        if not _row_names([line[0] for line in below]):
            raise ValueError(
                f"its rows have {len(_trimmed(below[0]))} fields and its header has {len(names)} "
                f"({', '.join(names[:5])}, ...); expected a name for each"
            )
        names.insert(0, "")
    cells, broken = [], []
    for at, line in enumerate(below):
        beyond = [cell for cell in line[len(names) :] if not missing(cell)]
        if beyond:
            broken.append((at, str(beyond[0])[:60]))
        cells.append([*line[: len(names)], *[None] * (len(names) - len(line))])
    table = pd.DataFrame(cells, columns=list(_distinct(names)), dtype=object)
    return Rows(table, words, tuple(broken))


def _trimmed(line: Line) -> Line:
    """Return a line without the empty fields at its end."""
    end = len(line)
    while end and (line[end - 1] is None or line[end - 1] == ""):
        end -= 1
    return line[:end]


def _row_names(first: Sequence[Any]) -> bool:
    counted = [number(cell) for cell in first]
    return counted in (
        [float(i) for i in range(len(first))],
        [float(i + 1) for i in range(len(first))],
    ) or all(one != one for one in counted)


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """Yield names, each once: a second `loss` becomes `loss (column 5)`."""
    seen: set[str] = set()
    for at, name in enumerate(names, start=1):
        name = name or f"column {at}"
        if name in seen:
            name = f"{name} (column {at})"
        while name in seen:
            name += "'"
        seen.add(name)
        yield name
