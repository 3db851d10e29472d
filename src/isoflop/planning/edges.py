"""Minima at the edge of what was trained: which sizes would bracket them, and what keeps them out.

A grid ends there by its own bounds, where the family of shapes ends, or where the budget no longer
buys whole steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Literal

from isoflop.config import Frozen, Grid, RunRecord, Study
from isoflop.costs import parameters
from isoflop.planning.cell import Cell, cells
from isoflop.planning.recipe import affordable

Side = Literal["smaller", "larger"]
End = Literal["shapes", "steps"]
"""Why there are no sizes further out: no such shape, or no whole steps of it for the budget."""


class Setting(Frozen):
    """A bound of the grid, as it is and as it would have to be."""

    name: Literal["added_at_most", "minimum_parameters", "maximum_parameters"]
    now: float
    needed: float


class Edge(Frozen):
    """A side of a minimum that lacks sizes although the grid is done with it."""

    variant: str
    budget_flops: float
    minimum_parameters: int
    """Total parameters of the best size."""
    side: Side
    present: int
    """Usable sizes on that side."""
    wanted: int
    """Sizes that the grid asks for on each side."""
    sizes: tuple[int, ...]
    """Total parameters of the sizes that would be trained next, near ones first."""
    end: End | None
    """Why these are fewer than wanted; None where they are not."""
    seconds: float
    """What training them takes if each takes as long as the best one did."""
    settings: tuple[Setting, ...]
    """Bounds that keep these sizes out."""


def edges(study: Study, records: Sequence[RunRecord]) -> list[Edge]:
    """Return the sides of minima that lack sizes for good, by budget and variant.

    Raises:
        ValueError: If a finished record lacks the validation loss it is judged by.
    """
    return [
        edge
        for cell in cells(study, records)
        if cell.minimum is not None and not cell.bracketed and not cell.needed()
        for edge in _short_sides(cell)
    ]


def _short_sides(cell: Cell) -> Iterator[Edge]:
    assert cell.minimum is not None
    assert cell.minimum_parameters is not None
    margin = cell.study.grid.margin
    added = len(cell.rungs) - len(cell.initial)
    each = len(cell.study.seeds) if cell.study.replicate == "all" else 1
    seconds = statistics.fmean(record.seconds for record in cell.finished(cell.minimum))
    sides: tuple[tuple[Side, int], ...] = (("smaller", cell.below), ("larger", cell.above))
    for side, present in sides:
        if present >= margin:
            continue
        sizes, end = _beyond(cell, side, margin - present)
        added += len(sizes)
        yield Edge(
            variant=cell.variant.name,
            budget_flops=cell.budget_flops,
            minimum_parameters=cell.minimum_parameters,
            side=side,
            present=present,
            wanted=margin,
            sizes=tuple(sizes),
            end=end,
            seconds=len(sizes) * each * seconds,
            settings=tuple(_settings(cell.study.grid, sizes, added)) if sizes else (),
        )


def _beyond(cell: Cell, side: Side, count: int) -> tuple[list[int], End | None]:
    """Return the parameters of the next sizes on a side, and why they are fewer than `count`."""
    sizes: list[int] = []
    for distance in range(count):
        smaller = side == "smaller"
        rung = cell.rungs.start - 1 - distance if smaller else cell.rungs.stop + distance
        model = cell.ladder.rung(rung, bounded=False)
        if model is None:
            return sizes, "shapes"
        if not affordable(cell.study, cell.variant, cell.budget_flops, model):
            return sizes, "steps"
        sizes.append(parameters(model).total)
    return sizes, None


def _settings(grid: Grid, sizes: list[int], added: int) -> Iterator[Setting]:
    """Yield the bounds that keep sizes out, if `added` are added to the first ones in all."""
    if added > grid.added_at_most:
        yield Setting(name="added_at_most", now=grid.added_at_most, needed=added)
    if grid.minimum_parameters is not None and min(sizes) < grid.minimum_parameters:
        yield Setting(name="minimum_parameters", now=grid.minimum_parameters, needed=min(sizes))
    if grid.maximum_parameters is not None and max(sizes) > grid.maximum_parameters:
        yield Setting(name="maximum_parameters", now=grid.maximum_parameters, needed=max(sizes))
