"""What the parts of a page are made of: headings, words, figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pandas as pd

from isoflop.config import RunConfig
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

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Sentences:
    """Sentences one below the other."""

    kind: ClassVar[str] = "sentences"
    lines: Sequence[str]


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; `look` is a class of the style sheet."""

    kind: ClassVar[str] = "paragraph"
    text: Text
    look: str = ""


@dataclass(frozen=True)
class Note:
    """What is missing, in a box."""

    kind: ClassVar[str] = "note"
    title: str
    text: Text


@dataclass(frozen=True)
class Pair:
    """Panels beside one another, two in a row."""

    kind: ClassVar[str] = "pair"
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Choice:
    """Panels of which the reader chooses one, by key and label."""

    kind: ClassVar[str] = "choice"
    title: str
    panels: Sequence[tuple[str, str, Panel]]


@dataclass(frozen=True)
class Column:
    """A column of a table; `look` is a class of the style sheet: number, name or trials."""

    title: str
    look: str = ""


@dataclass(frozen=True)
class Wide:
    """A cell over several columns."""

    text: Text
    columns: int


@dataclass(frozen=True)
class Table:
    """A table, every cell as the text that is shown."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Text | Wide]]
    groups: Sequence[tuple[str, int]] = ()
    """Titles over several columns, with their number."""
    after: str = ""
    """What follows the caption."""
    csv: str = ""
    """Name of the file that has the same in full precision, without its ending."""
    data: pd.DataFrame = field(default_factory=pd.DataFrame)
    """What that file holds."""


def columns(*titles: str) -> tuple[Column, ...]:
    """Return columns from their titles: '#Loss' is one of numbers, '.Variant' one of names."""
    looks = {"#": "number", ".": "name", ":": "trials"}
    return tuple(
        Column(title[1:], looks[title[0]]) if title[:1] in looks else Column(title)
        for title in titles
    )


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading of its own."""

    title: str
    blocks: Sequence[Block]
    anchor: str = ""

    def figures(self) -> list[Figure]:
        """Return the figures that are drawn in it."""
        found: list[Panel] = []
        for block in self.blocks:
            match block:
                case Pair():
                    found += block.panels
                case Choice():
                    found += [panel for _, _, panel in block.panels]
                case Figure():
                    found.append(block)
                case _:
                    pass
        return [one for one in found if isinstance(one, Figure)]

    def tables(self) -> list[Table]:
        """Return the tables that are in it."""
        return [block for block in self.blocks if isinstance(block, Table)]


def variant(name: str) -> tuple[Styled]:
    """Return a variant's name beside its colour."""
    return (Styled("variant", name),)


def with_ends(value: str, ends: str | None) -> Text:
    """Return a number with its interval below it, where there is one."""
    return (value, Styled("ends", ends)) if ends else value


def size_of(config: RunConfig) -> str:
    """Return the shape of a model in words."""
    return f"{config.model.blocks} blocks of width {config.model.width}"


@dataclass(frozen=True)
class Piece:
    """A token as it is shown."""

    text: str
    colours: tuple[str, str] | None
    """Background and ink."""
    told: str
    """Which blocks processed it, in words."""


@dataclass(frozen=True)
class Strip:
    """Generated text as it is shown, each token with the colour of its depth."""

    kind: ClassVar[str] = "strip"
    prompt: tuple[Piece, ...]
    tokens: tuple[Piece, ...]
    legend: tuple[tuple[str, str] | None, ...]
    """By number of blocks."""
    caption: str


Block = Heading | Sentences | Paragraph | Note | Pair | Choice | Table | Strip | Panel
