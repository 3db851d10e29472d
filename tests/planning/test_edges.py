"""Minima at the edge of their grid: what would bracket them, and what keeps it out."""

from __future__ import annotations

import math
from typing import Any

import pytest
from driven_grid import drive, make_study, total, valley

from isoflop.config import Variant
from isoflop.planning import affordable, brackets, edges, ladder
from isoflop.planning.cell import cells
from isoflop.planning.edges import Setting

ONLY = (Variant(name="only"),)


def rung_size(study: Any, rung: int) -> int:
    model = ladder(study, study.variants[0], study.budgets_flops[0]).rung(rung, bounded=False)
    from isoflop.costs import parameters

    return parameters(model).total


def slope(sign: float) -> Any:
    """A loss that falls for ever with size, or rises."""
    return lambda run: 5 + sign * 0.1 * math.log(total(run.config))


def test_a_bracketed_minimum_has_no_edge() -> None:
    study = make_study()
    assert edges(study, []) == []
    _, records = drive(study, valley(study))
    assert all(bracket.bracketed for bracket in brackets(study, records))
    assert edges(study, records) == []


def test_an_open_minimum_is_no_edge_while_sizes_are_to_come() -> None:
    study = make_study(variants=ONLY, budgets_flops=(1e15,))
    runs, records = drive(study, slope(-1))
    assert len(runs) == 12
    assert edges(study, records[:7]) == []
    assert len(edges(study, records)) == 1


@pytest.mark.parametrize(("sign", "side"), [(-1, "larger"), (1, "smaller")])
def test_the_bound_on_added_sizes_is_named(sign: int, side: str) -> None:
    grid = {"sizes": 5, "added_at_most": 1, "margin": 2}
    study = make_study(variants=ONLY, budgets_flops=(1e15,), grid=grid)
    _, records = drive(study, slope(sign))
    (edge,) = edges(study, records)
    next_rungs = (6, 7) if side == "larger" else (-2, -3)
    assert (edge.side, edge.present, edge.wanted, edge.end) == (side, 0, 2, None)
    assert edge.sizes == tuple(rung_size(study, rung) for rung in next_rungs)
    assert edge.minimum_parameters == rung_size(study, 5 if side == "larger" else -1)
    assert edge.settings == (Setting(name="added_at_most", now=1, needed=3),)
    # As many sizes as long as the best one took.
    assert edge.seconds == 2 * records[0].seconds
    # Allowed so, the grid trains just these.
    wider = make_study(variants=ONLY, budgets_flops=(1e15,), grid={**grid, "added_at_most": 3})
    runs, _ = drive(wider, slope(sign))
    assert set(edge.sizes) <= {total(run.config) for run in runs}


def test_a_size_that_whole_steps_cannot_pay_ends_the_ladder() -> None:
    grid = {"sizes": 3, "added_at_most": 4}
    study = make_study(
        variants=ONLY, budgets_flops=(1.3e12,), seeds=(0, 1), tokens_per_step=8192, grid=grid
    )
    (cell,) = cells(study)
    payable = [affordable(study, cell.variant, 1.3e12, cell.model(rung)) for rung in (3, 4, 5)]
    assert payable == [True, False, True]
    runs, _ = drive(study, slope(-1))
    # Sizes beyond would be counted on no side, and further seeds would wait for them for good.
    assert [run.purpose for run in runs].count("added") == 1
    assert {run.config.seed for run in runs} == {0, 1}


def test_one_size_of_two_is_named_with_what_it_lacks() -> None:
    study = make_study(variants=ONLY, grid={"sizes": 5, "added_at_most": 0})
    best = rung_size(study, 1)
    _, records = drive(study, lambda run: 2 + abs(math.log(total(run.config) / best)))
    (edge,) = edges(study, records)
    assert (edge.side, edge.present, edge.sizes) == ("smaller", 1, (rung_size(study, -1),))


AT_MOST, AT_LEAST = ({"name": f"{name}_parameters"} for name in ("maximum", "minimum"))
SMALL_SHAPES = {"budgets_flops": (1e13,), "grid": {"centre_parameters": 2e4, "added_at_most": 20}}


@pytest.mark.parametrize(
    ("sign", "changes", "sizes", "end", "bound"),
    [
        (-1, {"grid": {"maximum_parameters": 6e5}}, 2, None, {**AT_MOST, "now": 6e5}),
        (1, {"grid": {"minimum_parameters": 1.5e5}}, 2, None, {**AT_LEAST, "now": 1.5e5}),
        # Where the budget buys no whole steps, or there is no such shape, nothing can be allowed.
        (-1, {"budgets_flops": (3e11,)}, 0, "steps", None),
        (1, SMALL_SHAPES, 0, "shapes", None),
    ],
)
def test_what_ends_a_grid_is_named(sign, changes, sizes, end, bound) -> None:
    study = make_study(variants=ONLY, **changes)
    _, records = drive(study, slope(sign))
    (edge,) = edges(study, records)
    side, extreme = ("larger", max) if sign < 0 else ("smaller", min)
    assert (edge.side, len(edge.sizes), edge.end) == (side, sizes, end)
    wanted = () if bound is None else (Setting(**bound, needed=extreme(edge.sizes)),)
    assert edge.settings == wanted
