"""Tables for the terminal: readable at 80 columns, at 120 and when piped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from pydantic import TypeAdapter
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from isoflop import storage
from isoflop.config import ModelConfig
from isoflop.estimate import NONE, Estimate, estimate_words
from isoflop.notation import exponent, significant
from isoflop.text import quoted

Row = TypeVar("Row")
Cells: TypeAlias = Mapping[str, Callable[[Row], str]]
"""What stands below each heading, made of what a line is about."""

PIPED_WIDTH = 120
"""Columns of a table that goes to a file or another program."""

LINES = 40
"""Of a screen; what is longer scrolls the answer out of sight."""
MOST_ROWS = 12
"""Of the table, however much room there is."""
CLOSING = "All estimators, surfaces and intervals: --details. As JSON: --json."


def show(renderables: Iterable[RenderableType]) -> None:
    """Print to standard output, as wide as the terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    for renderable in renderables:
        console.print(renderable)


def said(text: str, style: str = "") -> Text:
    """Return a line whose markup and control characters stay inert."""
    return Text(quoted(text), style=style)


def show_json(value: Any) -> None:
    """Print a value, or what holds values of pydantic, to standard output as strict JSON."""
    print(storage.to_json(TypeAdapter(Any).dump_python(value, mode="json"), indent=2))


def answer(told: Any, shown: Iterable[RenderableType], *, json: bool) -> None:
    """Print what was found, as JSON or for people."""
    if json:
        show_json(told)
    else:
        show(shown)


def table(
    title: str,
    rows: Sequence[Row],
    cells: Cells[Row],
    *,
    names: Container[str] = (),
    words: Container[str] = (),
    long: Container[str] = (),
) -> Table:
    """Return a table; markup and control characters in title and cells stay inert.

    Args:
        title: stands above.
        rows: what each line is about.
        cells: numbers on one line each, but for those named below.
        names: headings of names, which may take several lines when the terminal is narrow.
        words: headings of words on one line.
        long: headings of numbers that may take several lines.
    """
    made = Table(
        title=said(title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in cells:
        wraps = heading in names or heading in long
        made.add_column(
            said(heading),
            justify="left" if heading in names or heading in words else "right",
            no_wrap=not wraps,
            overflow="fold" if wraps else "ellipsis",
            min_width=8 if wraps else None,
        )
    for row in rows:
        made.add_row(*(said(cell(row)) for cell in cells.values()))
    return made


def told(value: float | None, form: str | Callable[[float], str]) -> str:
    """Return a number in a format, or as a function writes it; a dash where there is none."""
    if value is None:
        return NONE
    return form.format(value) if isinstance(form, str) else form(value)


def coefficient(one: Estimate | None) -> str:
    """Return a fitted number with its interval, a dash where there is none."""
    return estimate_words(
        one, lambda value: (significant if 1e-3 <= abs(value) < 1e4 else exponent)(value)
    )


def shape(model: ModelConfig) -> str:
    """Return blocks and width, the two numbers that tell most about a shape."""
    return f"{model.blocks} x {model.width}"


def size(value: float) -> str:
    """Return a number of bytes with a decimal unit, short enough for a column: 3.1 GB."""
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"


def amount(seconds: float) -> str:
    """Return a time with one unit, short enough for a column: 8.1 s, 12 min, 3.1 h, 2.4 d."""
    if 0 < seconds < 0.1:
        return "< 0.1 s"
    for unit, length, enough in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < enough:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 86400:,.2g} d" if seconds < 99.5 * 86400 else f"{seconds / 86400:,.0f} d"


def capped(lines: Sequence[str], most: int) -> list[str]:
    """Return the first lines, and in place of the others how many they are."""
    more = len(lines) - most
    return [*lines[:most], *([f"And {more} more: --details."] if more > 0 else [])]


@dataclass(frozen=True)
class Screen:
    """Sentences, a table that takes the lines they leave, and closing sentences."""

    above: tuple[RenderableType, ...]
    below: tuple[RenderableType, ...]
    rows: int
    """Rows that the whole table has; 0 for no table."""
    table: Callable[[int], Sequence[RenderableType]]
    """Makes the table with at most so many rows, and a line on what is missing from it."""

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Yield all of it, the table only where at least one row fits."""

        def height(parts: Sequence[RenderableType]) -> int:
            return sum(len(console.render_lines(one, options, pad=False)) for one in parts)

        left = LINES - height(self.above) - height(self.below)
        yield from self.above
        for rows in range(min(self.rows, MOST_ROWS), 0, -1):
            made = self.table(rows)
            if height(made) <= left:
                yield from made
                break
        yield from self.below
