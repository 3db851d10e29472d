"""What the parts of a page are made of: headings, words, figures and tables.

The page's template draws each by a macro that has the name of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from isoflop.config import RunConfig, TextSample
from isoflop.estimate import Estimate
from isoflop.notation import written
from isoflop.report.figure import Figure, Panel

NONE = "\N{EN DASH}"
"""What stands for a number that there is none of."""

Look = Literal["variant", "ends", "strong", "code", "badge", "hint", "break"]


@dataclass(frozen=True)
class Styled:
    """Text with a look of its own, within a cell or a paragraph."""

    look: Look
    text: str = ""
    more: str = ""
    """A badge's colour, a hint's text."""


Text = str | tuple[str | Styled, ...]


@dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclass(frozen=True)
class Sentences:
    """Sentences one below the other."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `look` is a class of the style sheet."""

    text: Text
    look: str = ""


@dataclass(frozen=True)
class Pair:
    """Panels beside one another, two in a row."""

    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """Panels of which the reader chooses one."""

    title: str
    labels: Mapping[str, str]
    """Of each, by its key."""
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Wide:
    """A cell over several columns."""

    text: Text
    columns: int


@dataclass(frozen=True)
class Table:
    """A table, every cell as the text that is shown; `table` makes one."""

    caption: str
    columns: Sequence[tuple[str, str]]
    """Title and look of each, a class of the style sheet: number, name, trials, or none."""
    rows: Sequence[Sequence[Text | Wide]]
    groups: Sequence[tuple[str, int]]
    """Titles over several columns, with their number; none where no column has one."""
    after: str = ""
    """What follows the caption."""
    csv: str = ""
    """Name of the file that has the same in full precision, without its ending."""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What that file holds."""


Row = Mapping[str, Text | Wide | None]
"""Cells by the titles of their columns; None stands for one that a wide cell before it covers."""

_LOOKS = {"#": "number", ".": "name", ":": "trials"}


def table(caption: str, rows: Sequence[Row], **more: Any) -> Table:
    """Return a table of one row at least.

    A title begins with what its column holds, `#` for numbers, `.` for names; where neighbours
    stand under a title of their own, that and `|` come before: `Tokens|#D`.
    """
    columns: list[tuple[str, str]] = []
    groups: list[tuple[str, int]] = []
    for whole in rows[0]:
        group, _, title = whole.rpartition("|")
        look = _LOOKS.get(title[:1], "")
        columns.append((title[1:] if look else title, look))
        before = groups.pop()[1] if group and groups and groups[-1][0] == group else 0
        groups.append((group, before + 1))
    cells = [[cell for cell in row.values() if cell is not None] for row in rows]
    return Table(caption, columns, cells, groups if any(name for name, _ in groups) else (), **more)


@dataclass(frozen=True)
class Strip:
    """Generated text, each token with the colour of its depth."""

    sample: TextSample
    caption: str


Block = Heading | Sentences | Paragraph | Pair | Choice | Table | Strip | Panel


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ""

    def figures(self) -> list[Figure]:
        """Return the figures that are drawn in it."""
        each = [getattr(block, "panels", (block,)) for block in self.blocks]
        return [one for panels in each for one in panels if isinstance(one, Figure)]

    def tables(self) -> list[Table]:
        """Return the tables that are in it."""
        return [block for block in self.blocks if isinstance(block, Table)]


def variant(name: str) -> tuple[Styled]:
    """Return a variant's name beside its colour."""
    return (Styled("variant", name),)


def with_ends(value: str, ends: str | None) -> Text:
    """Return a number with its interval below it, where there is one."""
    return (value, Styled("ends", ends)) if ends else value


def number(value: float | None, form: str | Callable[[float], str] = ".4f") -> str:
    """Return a number as a format or a function writes it, a dash where there is none."""
    return NONE if value is None or pd.isna(value) else written(value, form)


def estimate(one: Estimate | None, form: str = ".4f") -> Text:
    """Return a value with its interval below it, a dash where there is none."""
    return NONE if one is None else with_ends(number(one.value, form), one.interval_words(form))


def with_columns(name: str, one: Estimate | None) -> dict[str, float | None]:
    """Return a value and the ends of its interval by the columns of a file that hold them."""
    value, low, high = (one.value, one.low, one.high) if one else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def size_of(config: RunConfig) -> str:
    """Return the shape of a model in words."""
    return f"{config.model.blocks} blocks of width {config.model.width}"
