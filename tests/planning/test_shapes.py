from __future__ import annotations

import math

import pytest

from isoflop.config import Choices, EveryToken, Gelu, RandomK, ShapeFamily, SwiGlu, TopK
from isoflop.costs import parameters
from isoflop.planning import shape

SMALL = ShapeFamily(width_per_block=16, head_width=32, width_step=16, hidden_step=16)
LARGE = ShapeFamily(width_per_block=64, head_width=64, width_step=64, hidden_step=64)


@pytest.mark.parametrize(
    ("family", "vocabulary", "targets"),
    [(SMALL, 256, (1e5, 2.8e5, 1e6, 2e7)), (LARGE, 32_000, (5e7, 2.5e8, 1e9, 3e9))],
)
@pytest.mark.parametrize("depth", [EveryToken(), TopK(capacity=0.125), RandomK(capacity=0.5)])
def test_parameters_and_aspect_come_near(
    family: ShapeFamily, vocabulary: int, targets: tuple[float, ...], depth: EveryToken
) -> None:
    for target in targets:
        model = shape(family, target, vocabulary=vocabulary, choices=Choices(depth=depth))
        assert 0.8 < parameters(model).total / target < 1.25
        assert 0.5 < model.width / model.blocks / family.width_per_block < 2
        assert model.depth == depth


def test_no_other_shape_of_the_family_scores_better() -> None:
    target, family = 3e5, SMALL
    chosen = shape(family, target, vocabulary=256)

    def score(width: int, blocks: int) -> float:
        hidden = max(1, math.floor(width * (8 / 3) / 16 + 0.5)) * 16
        # Heads fill the width whatever their number, so that one does for counting.
        model = chosen.model_copy(
            update={
                "width": width,
                "blocks": blocks,
                "heads": 1,
                "head_width": width,
                "hidden": hidden,
            }
        )
        miss = math.log(parameters(model).total / target)
        return miss**2 + 0.1 * math.log(width / blocks / 16) ** 2

    best = min(
        ((w, b) for w in range(16, 400, 16) for b in range(2, 60)), key=lambda wb: score(*wb)
    )
    assert (chosen.width, chosen.blocks) == best


def test_heads_fill_the_width_at_about_the_wanted_head_width() -> None:
    family = SMALL.model_copy(update={"width_step": 8})
    for target in (5e4, 1.3e5, 2e5, 2.8e5, 4.5e5, 1e6, 7e6):
        model = shape(family, target, vocabulary=256)
        assert model.heads * model.head_width == model.width
        assert 2 / 3 < model.head_width / 32 < 3 / 2 or model.heads == 1


def test_a_width_without_fitting_divisors_gets_the_heads_that_come_nearest() -> None:
    family = ShapeFamily(head_width=32, width_step=158)
    model = shape(family, 1.3e6, vocabulary=256)
    assert model.width == 158
    assert (model.heads, model.head_width) == (5, 32)


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
        assert model.width % 40 == 0
        assert model.hidden % 48 == 0
        assert abs(model.hidden - 4 * model.width) <= 24
        assert model.heads % 3 == 0
        assert model.kv_heads == model.heads // 3
        assert model.blocks >= 5
        assert model.query_key_norm
        assert model.tied_embeddings
        assert model.feed_forward == Gelu()
    assert shape(SMALL, 1e6, vocabulary=256).kv_heads is None
    assert shape(SMALL, 1e6, vocabulary=256).feed_forward == SwiGlu()


@pytest.mark.parametrize("every", [2, 3, 5])
def test_routed_blocks_are_a_whole_share_of_every_size(every: int) -> None:
    for target in (1e5, 4e5, 2e6):
        model = shape(
            SMALL, target, vocabulary=256, choices=Choices(depth=TopK(capacity=0.125, every=every))
        )
        assert model.blocks % every == 0
        assert len(model.routed_blocks) == model.blocks // every


def test_named_blocks_exist_at_every_size() -> None:
    depth = TopK(capacity=0.125, blocks=(1, 6))
    blocks = {
        shape(SMALL, n, vocabulary=256, choices=Choices(depth=depth)).blocks
        for n in (3e4, 4e5, 9e6)
    }
    assert min(blocks) >= 7
    assert len(blocks) > 1


def test_an_impossible_target_gets_the_smallest_shape() -> None:
    model = shape(SMALL, 1.0, vocabulary=256)
    assert (model.blocks, model.width) == (2, 16)


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_a_target_that_is_no_size_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_parameters"):
        shape(SMALL, target, vocabulary=256)
