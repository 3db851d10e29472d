"""Decoding a token at a time gives what the whole sequence gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoflop.ops import block_attention, block_attention_step, block_means

LENGTH = 61


def inputs(groups: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(groups)
    shapes = [(3, 6, LENGTH, 14), *2 * [(3, groups, LENGTH, 14)]]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize(
    ("block_size", "top_k", "prefill"),
    # What is prefilled ends within the first block, with a block, and within another one.
    [(7, 3, 1), (7, 3, 14), (7, 3, 20), (7, 1, 20), (8, 2, 1), (16, 9, 14), (1, 4, 20)],
)
def test_prefill_plus_decode_is_the_full_forward(
    block_size: int, top_k: int, prefill: int, groups: int
) -> None:
    q, k, v = inputs(groups)
    options = {"block_size": block_size, "top_k": top_k, "scale": 0.4}
    expected = block_attention(q, k, v, **options)
    for t in range(prefill, LENGTH):
        cached = slice(0, t + 1)
        means = block_means(k[:, :, cached], block_size)
        step = block_attention_step(
            q[:, :, t : t + 1], k[:, :, cached], v[:, :, cached], means, **options
        )
        torch.testing.assert_close(step, expected[:, :, t : t + 1])


@pytest.mark.parametrize("spoilt", [1e3, torch.nan])
def test_sequences_of_different_length(spoilt: float) -> None:
    q, k, v = inputs(2)
    lengths = torch.tensor([5, 61, 30])
    options = {"block_size": 7, "top_k": 3}
    last = torch.stack([q[row, :, n - 1 : n] for row, n in enumerate(lengths)])
    spoilt_k, spoilt_v = k.clone(), v.clone()
    for row, n in enumerate(lengths):
        spoilt_k[row, :, n:] = spoilt
        spoilt_v[row, :, n:] = spoilt
    step = block_attention_step(
        last, spoilt_k, spoilt_v, block_means(spoilt_k, 7), lengths=lengths, **options
    )
    expected = block_attention(q, k, v, **options)
    for row, n in enumerate(lengths):
        torch.testing.assert_close(step[row], expected[row, :, n - 1 : n])


def test_equal_blocks_are_chosen_as_in_training() -> None:
    q, k, v = inputs(6)
    k = k[:, :, :8].repeat(1, 1, 8, 1)[:, :, :LENGTH]
    expected = block_attention(q, k, v, block_size=8, top_k=3)
    step = block_attention_step(q[:, :, -1:], k, v, block_means(k, 8), block_size=8, top_k=3)
    torch.testing.assert_close(step, expected[:, :, -1:])


@pytest.mark.parametrize("layout", ["tokens before heads", "more slots", "odd strides"])
def test_any_layout_of_the_cache(layout: str) -> None:
    q, k, v = inputs(2)
    options = {"block_size": 7, "top_k": 3}
    expected = block_attention_step(q[:, :, -1:], k, v, block_means(k, 7), **options)

    def laid_out(x: Tensor) -> Tensor:
        if layout == "tokens before heads":
            return x.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "more slots":
            return torch.cat([x, torch.full_like(x, torch.nan)], dim=2)[:, :, :LENGTH]
        return torch.cat([x, torch.full_like(x[..., :3], torch.nan)], dim=3)[..., :14]

    found = block_attention_step(
        q[:, :, -1:], laid_out(k), laid_out(v), block_means(k, 7), **options
    )
    assert torch.equal(found, expected)
