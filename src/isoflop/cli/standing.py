"""What `isoflop status` prints: how far a study is, its minima, and the runs that stand out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.tables import Column, table
from isoflop.config import State
from isoflop.config.problems import quoted
from isoflop.planning import Bracket
from isoflop.report.notation import count, exponent
from isoflop.storage import JSON
from isoflop.sweep import RunRow, StudyStatus

ORDER: tuple[State, ...] = (
    "finished",
    "running",
    "preempted",
    "interrupted",
    "pending",
    "diverged",
    "failed",
)
LOUD = frozenset[State]({"running", "preempted", "interrupted", "diverged", "failed"})
"""States whose runs are listed one by one."""


def status_json(found: StudyStatus) -> JSON:
    """Return where a study stands as JSON data."""
    return {**found.model_dump(mode="json"), "complete": found.complete}


def status_tables(found: StudyStatus, hint: str) -> Iterator[RenderableType]:
    """Yield the counts, the minima, the runs under way or gone wrong, and what to do next.

    Args:
        found: Where the study stands.
        hint: The command that goes on with an incomplete study.
    """
    states = ", ".join(f"{found.counts[state]} {state}" for state in ORDER if state in found.counts)
    yield Text(f"{found.study}: {states}", style="bold")
    if found.brackets:
        yield _minima(found.brackets)
    loud = [row for row in found.rows if row.state in LOUD]
    if loud:
        yield _runs(loud)
        yield from _reasons(loud)
    if found.complete:
        yield Text("Every run that the study needs has its record.")
    else:
        growing = " What finishes may show that more sizes are needed." if found.brackets else ""
        yield Text(quoted(f"To go on: {hint}.{growing}"))


def _minima(found: Sequence[Bracket]) -> RenderableType:
    columns = (
        Column("variant", wraps=True, number=False),
        Column("budget"),
        Column("best size"),
        Column("smaller"),
        Column("larger"),
        Column("minimum", number=False),
    )
    rows = (
        (
            one.variant,
            exponent(one.budget_flops),
            "-" if one.minimum_parameters is None else count(one.minimum_parameters),
            str(one.below),
            str(one.above),
            _verdict(one),
        )
        for one in found
    )
    return table("Minima so far", columns, rows)


def _verdict(one: Bracket) -> str:
    if one.minimum_parameters is None:
        return "-"
    if one.settled:
        return "bracketed" if one.bracketed else "at the edge, no more sizes"
    return "bracketed, runs to come" if one.bracketed else "open"


def _runs(rows: Sequence[RunRow]) -> RenderableType:
    columns = [
        Column("run", number=False),
        Column("variant", wraps=True, number=False),
        Column("budget"),
        Column("params"),
        Column("seed"),
        Column("state", number=False),
        Column("step"),
    ]
    cells = [
        [
            row.run_id,
            row.variant,
            exponent(row.budget_flops),
            count(row.parameters),
            str(row.seed),
            row.state,
            f"{row.step:,}/{row.steps:,}",
        ]
        for row in rows
    ]
    return table("Under way or gone wrong", columns, cells)


def _reasons(rows: Sequence[RunRow]) -> Iterator[Text]:
    """Yield why runs went wrong, a line each, since a reason is too long for a column."""
    for row in rows:
        if row.reason:
            yield Text(quoted(f"{row.run_id}: {row.reason}"))
