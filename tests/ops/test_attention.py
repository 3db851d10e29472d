"""The fast paths against the written-out reference in float64, relative to its own rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isoflop.ops import attention_step, causal_attention, causal_attention_reference
from isoflop.ops.attention import CHUNK, DENSE_LENGTH

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
HEADS = [(3, 3), (6, 2), (5, 1)]
# Lengths on either side of a chunk's border, and one beyond the chunked path.
LENGTHS = [1, 63, CHUNK - 1, CHUNK + 1, 300]
CASES = [(length, *heads) for length in LENGTHS for heads in HEADS] + [(DENSE_LENGTH + 7, 2, 1)]


def inputs(heads: int, groups: int, length: int, dtype: torch.dtype) -> list[Tensor]:
    """q, k, v and the gradient of the result, rounded to `dtype`; axes are distinct primes."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(2, heads, length, 14), *2 * [(2, groups, length, 14)], (2, heads, length, 14)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def forward_and_gradients(
    attention: Attention, given: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """The result and the gradients of q, k and v in float64, computed in `dtype`."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in given[:3]]
    result = attention(*leaves)
    assert result.dtype == dtype
    gradients = torch.autograd.grad(result, leaves, given[3].to(dtype))
    return [tensor.detach().double() for tensor in (result, *gradients)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("length", "heads", "groups"), CASES)
def test_is_as_exact_as_the_reference(
    length: int, heads: int, groups: int, dtype: torch.dtype
) -> None:
    given = inputs(heads, groups, length, dtype)
    exact = forward_and_gradients(causal_attention_reference, given, torch.float64)
    reference = forward_and_gradients(causal_attention_reference, given, dtype)
    fast = forward_and_gradients(causal_attention, given, dtype)
    # Where the reference happens to be exact (one token), what rounding cancels to is no fault.
    floor = torch.finfo(dtype).eps * given[3].norm()
    for name, factor, true, slow, quick in zip(
        ("output", "dq", "dk", "dv"), (2, 3, 3, 3), exact, reference, fast, strict=True
    ):
        allowed = factor * (slow - true).norm()
        assert (quick - true).norm() <= (allowed if allowed > 0 else floor), name


@pytest.mark.parametrize("length", [1, 5])
def test_reference_is_a_weighted_mean_of_earlier_values(length: int) -> None:
    q, k, v, _ = inputs(6, 3, length, torch.float64)
    result = causal_attention_reference(q, k, v)
    for head in range(6):
        for t in range(length):
            keys, values = k[0, head // 2, : t + 1], v[0, head // 2, : t + 1]
            weights = (keys @ q[0, head, t] / 14**0.5).exp()
            expected = (weights / weights.sum()) @ values
            torch.testing.assert_close(result[0, head, t], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_the_future_does_not_reach_the_past(dtype: torch.dtype) -> None:
    q, k, v, _ = inputs(4, 2, 150, dtype)
    before = causal_attention(q, k, v)
    changed_k, changed_v = k.clone(), v.clone()
    changed_k[:, :, 131:] = 7
    changed_v[:, :, 131:] = -7
    after = causal_attention(q, changed_k, changed_v)
    assert torch.equal(before[:, :, :131], after[:, :, :131])
    assert not torch.equal(before[:, :, 131:], after[:, :, 131:])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize("length", [1, 63, 300])
@pytest.mark.parametrize("free", [0, 13, 600])
@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_is_the_last_row(
    batch: int, free: int, length: int, heads: int, groups: int, dtype: torch.dtype
) -> None:
    q, k, v = (x[:batch] for x in inputs(heads, groups, length, dtype)[:3])
    exact = causal_attention_reference(q.double(), k.double(), v.double(), scale=0.4)[:, :, -1:]
    reference = causal_attention_reference(q, k, v, scale=0.4)[:, :, -1:]
    # Free slots are not attended, whatever number is left in them.
    slots = [
        torch.cat([x, torch.full_like(x[:, :, :1], 50).expand(-1, -1, free, -1)], 2) for x in (k, v)
    ]
    found = attention_step(q[:, :, -1:], *slots, length=length, scale=0.4)
    if not free:
        assert torch.equal(found, attention_step(q[:, :, -1:], k, v, scale=0.4))
    assert found.dtype == dtype
    # In float64 the exact result is the reference itself.
    floor = (8 if dtype == torch.float64 else 1) * torch.finfo(dtype).eps * exact.norm()
    assert (found - exact).norm() <= 2 * (reference - exact).norm() + floor
