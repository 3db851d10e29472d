"""What the cache holds, and that it is no more than the closed form says."""

from __future__ import annotations

import pytest
import torch

from decoded import model_with, texts
from isoflop.config import BlockAttention, EveryToken, FullAttention, TopK
from isoflop.costs import cache_bytes
from isoflop.generation import Engine, nominal_share

BLOCKS = BlockAttention(block_size=4, top_k=2, full_last=1)
NOMINAL = TopK(capacity=0.125, every=2)
FP32, BF16 = torch.float32, torch.bfloat16
TOTAL = 24
"""Tokens at the end: whole blocks of 4, whole shares of an eighth, more than LEAST_SLOTS."""


def run(engine: Engine, totals: tuple[int, ...], prompt: int) -> None:
    whole = texts(totals)
    engine.prefill([text[:prompt] for text in whole])
    for t in range(prompt, totals[0]):
        engine.step([text[t] for text in whole])


@pytest.mark.parametrize(
    ("prompt", "dtypes"),
    [(1, [FP32, BF16, FP32]), (8, [BF16, FP32, BF16]), (19, [FP32, FP32, BF16])],
)
def test_bytes_are_those_of_the_closed_form(prompt: int, dtypes: list[torch.dtype]) -> None:
    """Every kind of attention at every prompt, and in both dtypes."""
    convolved = BLOCKS.model_copy(update={"key_convolution": 5})
    for attention, dtype in zip((FullAttention(), BLOCKS, convolved), dtypes, strict=True):
        kept = {}
        for depth in (EveryToken(), NOMINAL):
            model = model_with(depth, attention=attention).to(dtype)
            engine = Engine(model, forced=nominal_share(model) if model.routed else None)
            run(engine, (TOTAL,) * 3, prompt)
            kept[depth.kind] = engine.cache_bytes
            assert engine.cache_bytes == cache_bytes(model.config, TOTAL, 3, dtype.itemsize)
        # Block means and raw keys come on top, and the last routed block here attends fully.
        if isinstance(attention, FullAttention):
            assert kept["top_k"] <= 0.58 * kept["every_token"]


def test_the_nominal_share_is_exact_and_staggered() -> None:
    for capacity, length, share in ((0.125, 64, 8), (0.5, 10, 5), (0.3, 30, 9), (1.0, 7, 7)):
        model = model_with(TopK(capacity=capacity, every=1))
        rule = nominal_share(model)
        taken = torch.stack([rule(block, torch.arange(length)[None])[0] for block in range(4)])
        assert taken.sum(1).tolist() == [share] * 4
        rows = rule(1, torch.arange(length).expand(3, -1))
        assert rows.sum(1).tolist() == [share] * 3
        if capacity < 0.2:
            # No two blocks process the same token, and no two sequences go together.
            assert int(taken.sum(0).max()) == 1
            assert int(rows.sum(0).max()) == 1


def test_room_made_at_once_is_not_made_again() -> None:
    model = model_with()
    engine = Engine(model)
    engine.prefill(texts((30, 20)), reserve=25)
    before = [cache._keys.shape[2] for cache in engine.caches]
    for token in range(25):
        engine.step([token, token])
    assert [cache._keys.shape[2] for cache in engine.caches] == before
    engine.step([1, 2])
    assert [cache._keys.shape[2] for cache in engine.caches] == [2 * slots for slots in before]


def test_sequences_may_be_dropped_and_reordered() -> None:
    model = model_with(TopK(capacity=0.4), attention=BLOCKS)
    whole = texts((12, 9, 14))
    engine, other = Engine(model), Engine(model)
    engine.prefill(whole)
    engine.keep([2, 0])
    logits = other.prefill([whole[2], whole[0]])
    assert engine.cache_bytes == other.cache_bytes
    assert torch.equal(engine.processed[:, :, :9], other.processed[:, :, :9])
    for token in range(6):
        found, logits = engine.step([token, 30 - token]), other.step([token, 30 - token])
        torch.testing.assert_close(found, logits)
    assert engine.cache_bytes == other.cache_bytes
