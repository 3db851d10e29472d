"""A table between sentences, with as many rows as one screen holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType

LINES = 40
"""Of a screen; what is longer scrolls the answer out of sight."""
MOST_ROWS = 12
"""Of the table, however much room there is."""
CLOSING = "All estimators, surfaces and intervals: --details. As JSON: --json."


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
