"""Shapes of a wanted size, and the ladder of them around an optimum."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.config import (
    Choices,
    Depth,
    EveryToken,
    Gelu,
    Grid,
    ShapeFamily,
    SwiGlu,
    TopK,
)
from isoflop.costs import parameters
from isoflop.planning import Ladder, shape, sizes

SMALL = ShapeFamily(width_per_block=16, head_width=32, width_step=16, hidden_step=16)
LARGE = ShapeFamily(width_per_block=64, head_width=64, width_step=64, hidden_step=64)
DEPTHS = (EveryToken(), TopK(capacity=0.125), TopK(capacity=0.5, every=5))


def make_ladder(
    centre: float,
    family: ShapeFamily = SMALL,
    depth: Depth = EveryToken(),  # noqa: B008 - frozen
    **grid: float,
) -> Ladder:
    return Ladder(
        family=family,
        grid=Grid.model_validate(grid),
        centre_parameters=centre,
        vocabulary=256 if family == SMALL else 32_000,
        choices=Choices(depth=depth),
    )


def totals(ladder: Ladder, indices: range) -> list[int]:
    models = [ladder.rung(index) for index in indices]
    return [parameters(model).total for model in models if model is not None]


@settings(max_examples=20, deadline=None)
@given(
    family=st.sampled_from([SMALL, LARGE]),
    above=st.floats(0, 4),
    depth=st.sampled_from(DEPTHS),
    sizes=st.integers(4, 7),
)
def test_sizes_are_a_factor_apart_around_the_centre(
    family: ShapeFamily, above: float, depth: Depth, sizes: int
) -> None:
    centre = (4e6 if family == SMALL else 3e8) * math.exp(above)
    ladder = make_ladder(centre, family, depth, sizes=sizes)
    assert ladder.initial == range(sizes)
    middle = math.exp(sum(map(math.log, totals(ladder, ladder.initial))) / sizes)
    assert middle == pytest.approx(centre, rel=0.1)
    # Where blocks come in fives, the nearest size is farther away.
    near = 0.2 if isinstance(depth, TopK) and depth.every == 5 else 0.15
    for index in range(-1, sizes + 3):
        model = ladder.rung(index)
        wanted = centre * 1.6 ** (index - (sizes - 1) / 2)
        assert parameters(model).total == pytest.approx(wanted, rel=near)
        assert 0.5 < model.width / model.blocks / family.width_per_block < 2
        assert model.depth == depth
        if isinstance(depth, TopK):
            assert len(model.routed_blocks) * depth.every == model.blocks
    # A rung does not depend on what was asked before.
    other = make_ladder(centre, family, depth, sizes=sizes)
    downwards = [other.rung(index) for index in reversed(range(-1, sizes + 3))]
    assert [ladder.rung(index) for index in range(-1, sizes + 3)] == downwards[::-1]


@pytest.mark.parametrize("depth", DEPTHS[:2])
@pytest.mark.parametrize("centre", [1e3, 5e4, 2.8e5])
def test_coarse_families_still_give_distinct_sizes_down_to_the_smallest(
    centre: float, depth: Depth
) -> None:
    ladder = make_ladder(centre, depth=depth)
    found = totals(ladder, ladder.initial)
    assert len(found) == 7
    for small, large in itertools.pairwise(found):
        assert math.sqrt(1.6) <= large / small < 3
    lowest = ladder.initial.start
    while ladder.rung(lowest - 1) is not None:
        lowest -= 1
    assert lowest > -10
    assert ladder.rung(lowest - 2) is None
    assert parameters(ladder.rung(lowest)).total == min(totals(ladder, range(-12, 9)))


def test_bounds_move_the_first_sizes_inside_and_may_leave_too_little() -> None:
    below = make_ladder(1e6, maximum_parameters=1e6)
    assert (len(below.initial), max(totals(below, below.initial)) <= 1e6) == (7, True)
    assert below.rung(below.initial.stop) is None
    above = make_ladder(1e6, minimum_parameters=3e6)
    assert (len(above.initial), min(totals(above, above.initial)) >= 3e6) == (7, True)
    both = make_ladder(1e6, minimum_parameters=5e5, maximum_parameters=2e6)
    assert 3 <= len(both.initial) < 7
    with pytest.raises(ValueError, match=r"grid.minimum_parameters.*at least 3"):
        _ = make_ladder(1e6, minimum_parameters=9e5, maximum_parameters=1.2e6).initial
    with pytest.raises(ValueError, match="no size"):
        _ = make_ladder(1e6, minimum_parameters=2e6, maximum_parameters=1e6).initial


def test_no_other_shape_of_the_family_scores_better() -> None:
    target = 3e5
    chosen = shape(SMALL, target, vocabulary=256)

    def score(width: int, blocks: int) -> float:
        hidden = max(1, math.floor(width * (8 / 3) / 16 + 0.5)) * 16
        # Heads fill the width whatever their number, so that one does for counting.
        counted = {"heads": 1, "head_width": width, "hidden": hidden}
        model = chosen.model_copy(update={"width": width, "blocks": blocks, **counted})
        miss = math.log(parameters(model).total / target)
        return miss**2 + 0.1 * math.log(width / blocks / 16) ** 2

    shapes = itertools.product(range(16, 400, 16), range(2, 60))
    assert (chosen.width, chosen.blocks) == min(shapes, key=lambda one: score(*one))


def test_heads_fill_the_width_at_about_the_wanted_head_width() -> None:
    family = SMALL.model_copy(update={"width_step": 8})
    for target in (5e4, 1.3e5, 2e5, 2.8e5, 4.5e5, 1e6, 7e6):
        model = shape(family, target, vocabulary=256)
        assert model.heads * model.head_width == model.width
        assert 2 / 3 < model.head_width / 32 < 3 / 2 or model.heads == 1
    # A width without fitting divisors gets the heads that come nearest.
    model = shape(ShapeFamily(head_width=32, width_step=158), 1.3e6, vocabulary=256)
    assert (model.width, model.heads, model.head_width) == (158, 5, 32)


def test_rounding_follows_the_family() -> None:
    family = ShapeFamily(
        head_width=24,
        width_step=40,
        hidden_per_width=4.0,
        hidden_step=48,
        queries_per_kv_head=3,
        query_key_norm=True,
        tied_embeddings=True,
        minimum_blocks=5,
    )
    for target in (2e5, 1e6, 9e6):
        model = shape(family, target, vocabulary=256, choices=Choices(feed_forward=Gelu()))
        assert (model.width % 40, model.hidden % 48, model.heads % 3) == (0, 0, 0)
        assert abs(model.hidden - 4 * model.width) <= 24
        assert model.kv_heads == model.heads // 3
        assert model.blocks >= 5
        assert (model.query_key_norm, model.tied_embeddings) == (True, True)
        assert model.feed_forward == Gelu()
    plain = shape(SMALL, 1e6, vocabulary=256)
    assert (plain.kv_heads, plain.feed_forward) == (None, SwiGlu())


def test_named_blocks_exist_at_every_size() -> None:
    choices = Choices(depth=TopK(capacity=0.125, blocks=(1, 6)))
    blocks = {shape(SMALL, n, vocabulary=256, choices=choices).blocks for n in (3e4, 4e5, 9e6)}
    assert min(blocks) >= 7
    assert len(blocks) > 1


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_a_target_that_is_no_size_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_parameters"):
        shape(SMALL, target, vocabulary=256)
    assert shape(SMALL, 1.0, vocabulary=256).width == 16


def test_a_large_shape_is_found_among_few(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    named = sizes.named_shape
    monkeypatch.setattr(
        sizes, "named_shape", lambda *size, **rest: made.append(size) or named(*size, **rest)
    )
    found = shape(SMALL, 1e11, vocabulary=256)
    assert parameters(found).total == pytest.approx(1e11, rel=0.02)
    assert len(made) < 600
