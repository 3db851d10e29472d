from __future__ import annotations

import itertools
import math

import pytest

from isoflop.config import (
    Choices,
    Depth,
    EveryToken,
    Grid,
    ShapeFamily,
    TopK,
)
from isoflop.costs import parameters
from isoflop.planning import Ladder

SMALL = ShapeFamily(width_per_block=16, head_width=32, width_step=16, hidden_step=16)
LARGE = ShapeFamily(width_per_block=64, head_width=64, width_step=64, hidden_step=64)


def make_ladder(
    centre: float,
    family: ShapeFamily = SMALL,
    depth: Depth = EveryToken(),  # noqa: B008 - frozen
    vocabulary: int = 256,
    **grid: float,
) -> Ladder:
    return Ladder(
        family=family,
        grid=Grid.model_validate(grid),
        centre_parameters=centre,
        vocabulary=vocabulary,
        choices=Choices(depth=depth),
    )


def totals(ladder: Ladder, indices: range) -> list[int]:
    models = [ladder.rung(index) for index in indices]
    return [parameters(model).total for model in models if model is not None]


@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.125)])
@pytest.mark.parametrize("sizes", [4, 7])
@pytest.mark.parametrize(
    ("centre", "family", "vocabulary"), [(4e6, SMALL, 256), (3e8, LARGE, 32_000)]
)
def test_sizes_are_a_factor_apart_around_the_centre(
    centre: float, family: ShapeFamily, vocabulary: int, sizes: int, depth: Depth
) -> None:
    ladder = make_ladder(centre, family, depth, vocabulary, sizes=sizes)
    assert ladder.initial == range(sizes)
    found = totals(ladder, range(-1, sizes + 3))
    assert len(found) == sizes + 4
    for index, total in enumerate(found, start=-1):
        assert total == pytest.approx(centre * 1.6 ** (index - (sizes - 1) / 2), rel=0.15)
    middle = math.exp(sum(map(math.log, totals(ladder, ladder.initial))) / sizes)
    assert middle == pytest.approx(centre, rel=0.1)


@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.125)])
@pytest.mark.parametrize("centre", [1e3, 5e4, 2.8e5])
def test_coarse_families_still_give_clearly_distinct_sizes(centre: float, depth: Depth) -> None:
    ladder = make_ladder(centre, depth=depth)
    found = totals(ladder, ladder.initial)
    assert len(found) == 7
    for small, large in itertools.pairwise(found):
        assert math.sqrt(1.6) <= large / small < 3


def test_the_ladder_ends_at_the_smallest_shape() -> None:
    ladder = make_ladder(5e4)
    lowest = ladder.initial.start
    while ladder.rung(lowest - 1) is not None:
        lowest -= 1
    assert lowest > -10
    assert ladder.rung(lowest - 1) is None
    assert ladder.rung(lowest - 2) is None
    assert all(ladder.rung(index) is not None for index in range(lowest, lowest + 12))


def test_a_rung_does_not_depend_on_what_was_asked_before() -> None:
    first, second = make_ladder(2.8e5, factor=1.61), make_ladder(2.8e5, factor=1.61)
    upwards = [first.rung(index) for index in range(-2, 9)]
    downwards = [second.rung(index) for index in range(8, -3, -1)]
    assert upwards == downwards[::-1]


def test_bounds_move_the_first_sizes_inside() -> None:
    below = make_ladder(1e6, maximum_parameters=1e6)
    assert len(below.initial) == 7
    assert max(totals(below, below.initial)) <= 1e6
    assert below.rung(below.initial.stop) is None
    above = make_ladder(1e6, minimum_parameters=3e6)
    assert len(above.initial) == 7
    assert min(totals(above, above.initial)) >= 3e6
    both = make_ladder(1e6, minimum_parameters=5e5, maximum_parameters=2e6)
    assert 3 <= len(both.initial) < 7


def test_bounds_that_leave_too_little_are_refused() -> None:
    with pytest.raises(ValueError, match=r"grid.minimum_parameters.*at least 3"):
        _ = make_ladder(1e6, minimum_parameters=9e5, maximum_parameters=1.2e6).initial
    with pytest.raises(ValueError, match="no size"):
        _ = make_ladder(1e6, minimum_parameters=2e6, maximum_parameters=1e6).initial
