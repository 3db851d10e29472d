"""Tables for the terminal: readable at 80 columns, at 120 and when piped."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from isoflop import storage
from isoflop.cli.costing import CONVENTIONS, CostRow
from isoflop.config import ModelConfig
from isoflop.estimate import Estimate, estimate_words
from isoflop.notation import count, exponent, percent, significant
from isoflop.text import quoted

PIPED_WIDTH = 120
"""Columns of a table that goes to a file or another program."""

PARTS = {
    "attention_projections": "proj.",
    "attention_scores": "scores",
    "block_gate": "gate",
    "feed_forward": "feed-fwd",
    "router": "router",
    "decision_head": "decision",
    "logits": "logits",
}
"""Headings of the parts of the forward pass; the embedding is a lookup and costs nothing."""


def show(renderables: Iterable[RenderableType]) -> None:
    """Print to standard output, as wide as the terminal."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPED_WIDTH)
    for renderable in renderables:
        console.print(renderable)


def show_json(value: storage.JSON) -> None:
    """Print strict, indented JSON to standard output."""
    print(storage.to_json(value, indent=2))


@dataclass(frozen=True)
class Column:
    """A heading and how the cells below it are set."""

    heading: str
    wraps: bool = False
    """Whether a cell may take several lines when the terminal is narrow: names, not numbers."""
    number: bool = True
    """Whether cells are aligned right."""


def table(title: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table; markup and control characters in title and cells stay inert."""
    made = Table(
        title=Text(quoted(title), style="bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        made.add_column(
            Text(quoted(column.heading)),
            justify="right" if column.number else "left",
            no_wrap=not column.wraps,
            overflow="fold" if column.wraps else "ellipsis",
            min_width=8 if column.wraps else None,
        )
    for row in rows:
        made.add_row(*(Text(quoted(cell)) for cell in row))
    return made


def coefficient(one: Estimate | None) -> str:
    """Return a fitted number with its interval, a dash where there is none."""
    return estimate_words(one, _number)


def _number(value: float) -> str:
    return significant(value) if 1e-3 <= abs(value) < 1e4 else exponent(value)


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
    return f"{seconds / 86400:,.2g} d" if seconds < 100 * 86400 else f"{seconds / 86400:,.0f} d"


def cost_tables(rows: Sequence[CostRow]) -> list[Table]:
    """Return sizes, FLOPs by convention and FLOPs by part of the rows' models."""
    first = rows[0]
    parts = [part for part in PARTS if any(row.forward_parts[row.convention][part] for row in rows)]
    several = len({row.budget_flops for row in rows}) > 1

    def of_models(
        title: str, headings: Iterable[str], cells: Callable[[CostRow], Iterable[str]]
    ) -> Table:
        budget = ["budget"] if several else []
        return table(
            title,
            [Column("model", wraps=True, number=False), *map(Column, [*budget, *headings])],
            ([row.name, *([budget_text(row)] if several else []), *cells(row)] for row in rows),
        )

    return [
        of_models(
            "Parameters",
            ["shape", "total", "non-emb.", "active", "cache"],
            lambda row: (
                shape(row.model),
                count(row.parameters.total),
                count(row.parameters.non_embedding),
                count(row.parameters.active),
                size(row.cache_bytes),
            ),
        ),
        of_models(
            f"Forward FLOPs per token at {first.sequence_length} tokens, by convention "
            "(training: three times as many)",
            CONVENTIONS,
            lambda row: (exponent(row.forward_flops[c]) for c in CONVENTIONS),
        ),
        of_models(
            f"Where they go ({first.convention})",
            (PARTS[part] for part in parts),
            lambda row: (
                percent(row.forward_parts[row.convention][part] / row.forward_flops[row.convention])
                for part in parts
            ),
        ),
    ]


def budget_text(row: CostRow) -> str:
    """Return a row's budget, a dash where it has none."""
    return "-" if row.budget_flops is None else exponent(row.budget_flops)
