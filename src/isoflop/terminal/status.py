"""What `isoflop status` prints: how far a study is, its minima, and the runs that stand out."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live

from isoflop.config import State
from isoflop.estimate import NONE
from isoflop.notation import count, duration, exponent
from isoflop.planning import Bracket, Edge
from isoflop.planning.edges import Setting
from isoflop.sweep import RunRow, StudyStatus
from isoflop.sweep.status import Whereabouts
from isoflop.terminal.plan import power_words
from isoflop.terminal.tables import said, show, table, told

LIVE_SECONDS = 2.0
"""Between two looks at a study, at least."""

LOUD: tuple[State, ...] = ("running", "preempted", "interrupted", "diverged", "failed")
"""States whose runs are listed one by one."""


def status_tables(found: StudyStatus, hint: str) -> Iterator[RenderableType]:
    """Yield the counts, the minima, the runs under way or gone wrong, and what to do next."""
    yield said(f"{found.study}: {counted(found)}", "bold")
    if found.brackets:
        yield _minima(found.brackets)
    for edge in found.edges:
        yield said(edge_words(edge), "yellow")
    if found.power is not None:
        yield from map(said, power_words(found.power))
    yield from (said(line, "yellow") for line in found.stale)
    loud = [row for row in found.rows if row.state in LOUD]
    if loud:
        yield _runs(loud)
        # A reason is too long for a column.
        yield from (said(f"{row.run_id}: {row.reason}") for row in loud if row.reason)
    if found.complete:
        yield said("Every run that the study needs has its record.")
    else:
        growing = " What finishes may show that more sizes are needed." if found.brackets else ""
        yield said(f"To go on: {hint}.{growing}")


def follow(look: Callable[[], StudyStatus], hint: str) -> None:
    """Show where a study stands, anew until it is complete or Ctrl-C; once without a terminal.

    `hint` is the command that goes on with it.
    """
    if not sys.stdout.isatty():
        show(status_tables(look(), hint))
        return
    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False) as live, suppress(KeyboardInterrupt):
        while True:
            began, found = time.monotonic(), look()
            live.update(Group(*status_tables(found, hint)), refresh=True)
            if found.complete:
                return
            # Training has the cores.
            time.sleep(max(LIVE_SECONDS, 5 * (time.monotonic() - began)))


def counted(found: StudyStatus) -> str:
    """Return how many runs are in each state, and how long all will take where that is known."""
    order: tuple[State, ...] = ("finished", *LOUD[:3], "pending", *LOUD[3:])
    states = ", ".join(f"{found.counts[state]} {state}" for state in order if state in found.counts)
    left = found.seconds_left
    return states if left is None else f"{states}; about {duration(left)} left"


def _minima(found: Sequence[Bracket]) -> RenderableType:
    return table(
        "Minima so far",
        found,
        {
            "variant": lambda one: one.variant,
            "budget": lambda one: exponent(one.budget_flops),
            "best size": lambda one: told(one.minimum_parameters, count),
            "smaller": lambda one: str(one.below),
            "larger": lambda one: str(one.above),
            "minimum": verdict,
        },
        names=["variant"],
        words=["minimum"],
    )


def verdict(one: Bracket) -> str:
    """Return in words whether a minimum is bracketed."""
    if one.bracketed and not one.below + one.above:
        return "the only size"
    if one.minimum_parameters is None:
        return "-"
    if one.settled:
        return "bracketed" if one.bracketed else "at the edge, no more sizes"
    return "bracketed, runs to come" if one.bracketed else "open"


def edge_words(edge: Edge) -> str:
    """Return in a sentence what would bracket a minimum at the edge, and how to allow it."""
    extreme = {"smaller": "smallest", "larger": "largest"}[edge.side]
    at = f"{edge.variant} at {exponent(edge.budget_flops)}: the lowest loss is at "
    if edge.present:
        sizes = "size" if edge.present == 1 else "sizes"
        at += (
            f"{count(edge.minimum_parameters)}, with {edge.present} {edge.side} {sizes} of the "
            f"{edge.wanted} wanted"
        )
    else:
        at += f"the {extreme} size trained ({count(edge.minimum_parameters)})"
    ends = {
        "shapes": f"the family of shapes has no {edge.side} size",
        "steps": f"whole steps of the next {edge.side} size miss the budget by over 1%",
    }
    if not edge.sizes:
        assert edge.end is not None, "without sizes something ended"
        return f"{at}, and {ends[edge.end]}"
    number, them = (
        ("1 size", "it") if len(edge.sizes) == 1 else (f"{len(edge.sizes)} sizes", "them")
    )
    names = " and ".join(count(size) for size in edge.sizes)
    allowed = ", ".join(
        f"grid.{one.name} = {one.now:.10g} keeps {them} out: set {_rounded(one)}"
        for one in edge.settings
    )
    beyond = "" if edge.end is None else f" ({ends[edge.end]} beyond)"
    return (
        f"{at}; {number} more, {names}, about {duration(edge.seconds)} of training, would show "
        f"whether it lies there{beyond}; {allowed}"
    )


def _rounded(setting: Setting) -> str:
    """Return a value that lets the needed one in, in few digits."""
    if setting.name == "added_at_most":
        return f"{setting.needed:g}"
    step = 10.0 ** (math.floor(math.log10(setting.needed)) - 1)
    down = setting.name == "minimum_parameters"
    whole = math.floor(setting.needed / step) if down else math.ceil(setting.needed / step)
    return f"{whole * step:g}"


def _runs(rows: Sequence[RunRow]) -> RenderableType:
    def of(words: Callable[[Whereabouts], str]) -> Callable[[RunRow], str]:
        return lambda row: NONE if row.at is None else words(row.at)

    going: dict[str, Callable[[RunRow], str]] = {
        "where": of(lambda at: f"{at.host or '?'} {at.pid or '?'}"),
        "tokens/s": of(lambda at: told(at.tokens_per_second, "{:,.0f}")),
        "left": of(lambda at: told(at.seconds_left, duration)),
        "last sign": of(lambda at: f"{duration(at.silent_seconds)} ago"),
    }
    if all(row.at is None for row in rows):
        going = {}
    return table(
        "Under way or gone wrong",
        rows,
        {
            "run": lambda row: row.run_id,
            "variant": lambda row: row.variant,
            "budget": lambda row: exponent(row.budget_flops),
            "params": lambda row: count(row.parameters),
            "seed": lambda row: str(row.seed),
            "state": lambda row: row.state,
            "step": lambda row: f"{row.step:,}/{row.steps:,}",
            **going,
        },
        names=["variant"],
        words=["run", "state", *list(going)[:1]],
    )
