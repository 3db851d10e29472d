"""Closed forms against shapes written out, masks counted pair by pair, and published ratios."""

from __future__ import annotations

import math
import random

import pytest

from isoflop.config import (
    BlockAttention,
    Convention,
    EveryToken,
    Gelu,
    ModelConfig,
    RandomK,
    SwiGlu,
    TopK,
)
from isoflop.costs import cache_bytes, forward_flops, parameters, train_flops_per_token

# All sizes differ, so that an exchanged axis cannot pass.
BASE = ModelConfig(vocabulary=53, width=22, blocks=5, heads=6, kv_heads=3, head_width=14, hidden=37)


def based(**changes: object) -> ModelConfig:
    return BASE.model_copy(update=changes)


CHOICES = {
    "dense": BASE,
    "gelu": based(feed_forward=Gelu()),
    "tied": based(tied_embeddings=True),
    "query_key_norm": based(query_key_norm=True),
    "top_k": based(depth=TopK(capacity=0.3, every=2)),
    "top_k_blocks": based(depth=TopK(capacity=0.125, blocks=(1, 2, 4))),
    "random_k": based(depth=RandomK(capacity=0.5, every=3)),
    "block": based(attention=BlockAttention(block_size=4, top_k=3)),
    "block, own only": based(attention=BlockAttention(block_size=7, top_k=1)),
    "block, last full": based(
        attention=BlockAttention(block_size=5, top_k=2, full_last=2, key_convolution=3)
    ),
    "block, all": based(attention=BlockAttention(block_size=10, top_k=3)),
    "block, turned full": based(attention=BlockAttention(block_size=5, top_k=2, full_from=0.9)),
    "block, top_k": based(
        attention=BlockAttention(block_size=4, top_k=2), depth=TopK(capacity=0.7, every=2)
    ),
}
LENGTH = 29


def weights_by_block(config: ModelConfig) -> list[dict[str, list[tuple[int, ...]]]]:
    """Shapes of every weight, block by block, by the part it belongs to."""
    blocks = []
    width, heads = config.width, config.heads
    kv_heads = config.kv_heads or config.heads
    for index in range(config.blocks):
        block: dict[str, list[tuple[int, ...]]] = {
            "attention": [
                (width, heads * config.head_width),
                (width, kv_heads * config.head_width),
                (width, kv_heads * config.head_width),
                (heads * config.head_width, width),
            ],
            "feed_forward": [(width, config.hidden), (config.hidden, width)],
            "norm": [(width,), (width,)],
            "router": [],
            "decision_head": [],
        }
        if isinstance(config.attention, BlockAttention):
            taps = config.attention.key_convolution
            block["attention"].append((taps, kv_heads * config.head_width))
        if isinstance(config.feed_forward, SwiGlu):
            block["feed_forward"].append((width, config.hidden))
        if config.query_key_norm:
            block["norm"] += [(config.head_width,), (config.head_width,)]
        if index in config.routed_blocks:
            block["router"].append((width, 1))
            if isinstance(config.depth, TopK):
                block["decision_head"] += [(width, width // 2), (width // 2, 1)]
        blocks.append(block)
    return blocks


def size(shapes: list[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def attended_pairs(
    config: ModelConfig, index: int, processed: list[int], convention: Convention
) -> tuple[int, int]:
    """Pairs of query and key, and of query and mean key, counted one by one over a mask."""
    attention, count = config.attention, len(processed)
    full = not isinstance(attention, BlockAttention) or attention.full_from < 1
    if isinstance(attention, BlockAttention) and not full:
        full = index >= 5 - attention.full_last or attention.block_size * attention.top_k >= count
    if full:
        allowed = (lambda q, k: k <= q) if convention == "causal" else (lambda q, k: True)
        return sum(1 for q in processed for k in processed if allowed(q, k)), 0
    assert isinstance(attention, BlockAttention)
    pairs, means, draw = 0, 0, random.Random(index)
    blocks = [
        range(start, min(start + attention.block_size, count))
        for start in range(0, count, attention.block_size)
    ]
    for q in range(count):
        own = q // attention.block_size
        selected = draw.sample(range(own), min(own, attention.top_k - 1))
        pairs += sum(len(blocks[i]) for i in selected)
        pairs += sum(1 for k in blocks[own] if k <= q or convention == "full")
        means += own if convention == "causal" else len(blocks)
    return pairs, means


@pytest.mark.parametrize("name", CHOICES)
def test_parameters_are_those_of_the_shapes_written_out(name: str) -> None:
    config = CHOICES[name]
    per_block = [{part: size(s) for part, s in b.items()} for b in weights_by_block(config)]
    inside = sum(sum(block.values()) for block in per_block) + config.width
    embeddings = 53 * 22 * (1 if config.tied_embeddings else 2)
    counted = parameters(config)
    assert counted.non_embedding == inside
    assert counted.total == inside + embeddings
    idle = 0.0
    for index in config.routed_blocks:
        assert not isinstance(config.depth, EveryToken)
        block = per_block[index]
        carried = block["attention"] + block["feed_forward"] + block["norm"]
        idle += (1 - config.depth.capacity) * carried
    assert abs(counted.active - (counted.total - idle)) <= 0.5


@pytest.mark.parametrize("convention", ["causal", "full"])
@pytest.mark.parametrize("name", CHOICES)
def test_flops_are_those_of_products_and_masks_counted_one_by_one(
    name: str, convention: Convention
) -> None:
    config = CHOICES[name]
    expected = dict.fromkeys(forward_flops(config, LENGTH).parts, 0)
    draw = random.Random(0)
    for index, block in enumerate(weights_by_block(config)):
        processed = list(range(LENGTH))
        if index in config.routed_blocks:
            assert not isinstance(config.depth, EveryToken)
            processed = draw.sample(processed, math.floor(config.depth.capacity * LENGTH))
        expected["attention_projections"] += 2 * len(processed) * size(block["attention"])
        # A score and a weighted value, each a product over the head width.
        pairs, means = attended_pairs(config, index, processed, convention)
        expected["attention_scores"] += pairs * 6 * (2 * 14 + 2 * 14)
        expected["block_gate"] += means * 6 * 2 * 14
        expected["feed_forward"] += 2 * len(processed) * size(block["feed_forward"])
        expected["router"] += 2 * LENGTH * size(block["router"])
        expected["decision_head"] += 2 * LENGTH * size(block["decision_head"])
    expected["logits"] = 2 * LENGTH * 22 * 53
    counted = forward_flops(config, LENGTH, convention)
    assert counted.parts == expected
    assert counted.total == sum(expected.values())
    assert counted.per_token == counted.total / LENGTH
    if name != "block, turned full":
        assert train_flops_per_token(config, LENGTH, convention) == 3 * counted.total / LENGTH


def test_training_that_turns_to_full_attention_is_charged_for_both() -> None:
    turning = CHOICES["block, turned full"]
    blocks = turning.model_copy(update={"attention": BlockAttention(block_size=5, top_k=2)})
    sparse, full = (forward_flops(config, LENGTH).total for config in (blocks, BASE))
    assert sparse < full == forward_flops(turning, LENGTH).total
    expected = 3 * (0.9 * sparse + 0.1 * full) / LENGTH
    assert train_flops_per_token(turning, LENGTH) == pytest.approx(expected)


@pytest.mark.parametrize("name", CHOICES)
def test_6nd_charges_every_non_embedding_parameter_routed_or_not(name: str) -> None:
    config = CHOICES[name]
    non_embedding = parameters(config).non_embedding
    assert forward_flops(config, LENGTH, "6nd").per_token == 2 * non_embedding
    assert train_flops_per_token(config, LENGTH, "6nd") == 6 * non_embedding


def test_cache_holds_keys_and_values_of_the_tokens_that_each_block_processed() -> None:
    per_token = 2 * 3 * 14
    assert cache_bytes(BASE, 40) == 5 * 40 * per_token * 2
    assert cache_bytes(BASE, 40, batch=7, bytes_per_value=4) == 7 * 5 * 40 * per_token * 4
    routed = based(depth=TopK(capacity=0.125, every=2))
    assert cache_bytes(routed, 40) == (3 * 40 + 2 * 5) * per_token * 2
    # Means of the whole blocks come on top, in float32, where attention goes by blocks.
    blocks = based(attention=BlockAttention(block_size=9, full_last=2))
    means = 3 * (40 // 9) * 3 * 14 * 4
    assert cache_bytes(blocks, 40) == 5 * 40 * per_token * 2 + means
    # A convolution over five keys needs the four before a key, where there are as many.
    convolved = blocks.model_copy(
        update={"attention": blocks.attention.model_copy(update={"key_convolution": 5})}
    )
    assert cache_bytes(convolved, 40) == cache_bytes(blocks, 40) + 5 * 4 * per_token
    assert cache_bytes(convolved, 3) == cache_bytes(blocks, 3) + 5 * 3 * per_token


@pytest.mark.parametrize("length", [0, -3])
def test_a_length_that_is_not_positive_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="sequence_length"):
        forward_flops(BASE, length)
    with pytest.raises(ValueError, match="sequence_length"):
        cache_bytes(BASE, length)


def published_shape(
    width: int, hidden: int, head_width: int, heads: int, blocks: int
) -> ModelConfig:
    return ModelConfig(
        vocabulary=32_000,
        width=width,
        blocks=blocks,
        heads=heads,
        head_width=head_width,
        hidden=hidden,
        feed_forward=Gelu(),
    )


def softmax_flops(heads: int, queries: int, keys: int) -> int:
    """Chinchilla charges three FLOPs per score; `isoflop.costs` counts products alone."""
    return 3 * heads * queries * keys


@pytest.mark.parametrize(
    ("million", "shape", "ratio"),
    [
        (73, (640, 2560, 64, 10, 10), 1.03),
        (305, (1024, 4096, 64, 16, 20), 1.10),
        (552, (1280, 5120, 128, 10, 24), 1.08),
        (1600, (2048, 8192, 128, 16, 28), 1.03),
        (6800, (3584, 14336, 128, 28, 40), 0.99),
    ],
)
def test_ratio_to_6nd_of_chinchilla_appendix_f(
    million: int, shape: tuple[int, int, int, int, int], ratio: float
) -> None:
    config = published_shape(*shape)
    flops = forward_flops(config, 2048, "full")
    softmax = config.blocks * softmax_flops(config.heads, 2048, 2048)
    exact = 3 * (flops.total - flops.logits + softmax) / 2048
    assert exact / (6 * million * 1e6) == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize(
    ("shape", "block_ratio", "model_ratio"),
    [
        ((640, 2560, 64, 10, 10), 0.087, 0.543),
        ((1024, 4096, 64, 16, 20), 0.097, 0.549),
        ((2048, 8192, 128, 16, 28), 0.109, 0.555),
    ],
)
def test_share_of_a_dense_model_at_capacity_an_eighth_every_other_block(
    shape: tuple[int, int, int, int, int], block_ratio: float, model_ratio: float
) -> None:
    """The published shares leave routing out and count softmax, as the table above does."""
    length, selected = 2048, 256
    dense = published_shape(*shape)
    routed = dense.model_copy(update={"depth": TopK(capacity=0.125, every=2)})
    flops = {}
    for name, config in (("dense", dense), ("routed", routed)):
        counted = forward_flops(config, length, "full")
        flops[name] = (
            counted.attention_projections + counted.attention_scores + counted.feed_forward
        )
        for index in range(config.blocks):
            n = selected if index in config.routed_blocks else length
            flops[name] += softmax_flops(config.heads, n, n)
    ratio = flops["routed"] / flops["dense"]
    assert ratio == pytest.approx(model_ratio, abs=5e-4)
    assert 2 * ratio - 1 == pytest.approx(block_ratio, abs=6e-4)


def test_6nd_misses_more_than_half_of_a_small_model() -> None:
    config = published_shape(128, 512, 32, 4, 4).model_copy(update={"vocabulary": 256})
    ratio = forward_flops(config, 1024, "6nd").total / forward_flops(config, 1024, "full").total
    assert ratio == pytest.approx(0.42, abs=0.005)
