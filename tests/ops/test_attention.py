"""The fast paths against the written-out reference in float64, within what rounding explains."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from itertools import product

import pytest
import torch
from rounding import rounding_bounds
from torch import Tensor

from isoflop.config import AttentionKernel
from isoflop.ops import (
    TILED_ATTENTION,
    attention_step,
    causal_attention,
    causal_attention_reference,
)
from isoflop.ops.attention import CHUNK

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
# q, k, v and the gradient of the result; the exact results; and the bounds on their errors.
Truth = tuple[list[Tensor], list[Tensor], list[Tensor]]
NAMES = ("output", "dq", "dk", "dv")
HEADS = [(3, 3), (6, 2), (5, 1)]
# The rule, and what else a CPU has; `flash` is the name of one of a GPU's that a CPU has too.
KERNELS: tuple[AttentionKernel | None, ...] = (None, "fused", "tiled", "flash")
# Lengths on either side of a chunk's border.
LENGTHS = [1, 63, CHUNK - 1, CHUNK + 1, 300]
CASES = [(length, *heads) for length in LENGTHS for heads in HEADS]


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


@cache
def truth(heads: int, groups: int, length: int, dtype: torch.dtype, size: float = 1) -> Truth:
    given = inputs(heads, groups, length, dtype)
    given[0] *= size
    exact = forward_and_gradients(causal_attention_reference, given, torch.float64)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    bounds = rounding_bounds(given, allowed, dtype, parts=math.ceil(length / CHUNK))
    return given, exact, bounds


def beyond_rounding(attention: Attention, of: Truth) -> set[str]:
    """Name the results that rounding does not explain."""
    given, exact, bounds = of
    found = forward_and_gradients(attention, given, given[0].dtype)
    # A NaN is beyond any bound.
    return {
        name
        for name, one, true, bound in zip(NAMES, found, exact, bounds, strict=True)
        if not bool(((one - true).abs() <= bound).all())
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(("length", "heads", "groups"), CASES)
def test_is_off_by_rounding_alone(length: int, heads: int, groups: int, dtype: torch.dtype) -> None:
    of = truth(heads, groups, length, dtype)
    for kernel in KERNELS:
        assert beyond_rounding(partial(causal_attention, kernel=kernel), of) == set(), kernel
    assert beyond_rounding(causal_attention_reference, of) == set()


def test_long_bfloat16_is_off_by_rounding_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    of = truth(6, 2, 300, torch.bfloat16)
    dense = causal_attention(*of[0][:3])
    monkeypatch.setattr("isoflop.ops.attention.DENSE_LENGTH", 299)
    assert beyond_rounding(causal_attention, of) == set()
    assert not torch.equal(causal_attention(*of[0][:3]), dense)


def test_scores_too_large_for_an_exponential_are_off_by_rounding_alone() -> None:
    of = truth(6, 2, 63, torch.float32, size=40)
    for kernel in KERNELS:
        assert beyond_rounding(partial(causal_attention, kernel=kernel), of) == set(), kernel
    assert beyond_rounding(wrong(largest=False), of) == set(NAMES)


@pytest.mark.parametrize(("batch", "heads", "groups"), [(1, 4, 4), (1, 4, 2), (2, 3, 3)])
def test_tiles_lay_results_out_as_graphs_expect(batch: int, heads: int, groups: int) -> None:
    # Heads of a position side by side, as a model hands them on.
    q, k, v = (
        torch.randn(batch, 150, count, 8).transpose(1, 2).requires_grad_()
        for count in (heads, groups, groups)
    )
    out = causal_attention(q, k, v, kernel="tiled")
    with torch.no_grad():
        gradients = torch.ops.isoflop.tiled_attention_backward(out, q, k, v, 1.0)
    assert all(x.is_contiguous() for x in (out, *gradients))
    torch.library.opcheck(TILED_ATTENTION, (q, k, v, 0.5))


def wrong(
    *, scale: float = 1, ahead: int = 0, delta: bool = True, largest: bool = True, bits: int = 0
) -> Attention:
    """Attention with one mistake: what the bounds are for."""

    def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        group = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        scores = q @ k.mT * (scale * q.shape[-1] ** -0.5)
        if bits:
            # Fewer bits of the mantissa, and the gradient as it is.
            rounded = (scores.detach().view(torch.int32) >> bits << bits).view(torch.float32)
            scores = scores + (rounded - scores.detach())
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1 + ahead)
        scores = scores.masked_fill(future, float("-inf"))
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
        if largest:
            weights = scores.softmax(-1)
        if not delta:
            # The gradient of a softmax whose denominator is taken for a constant.
            weights = scores.exp() / scores.detach().exp().sum(-1, keepdim=True)
        return weights @ v

    return attention


@pytest.mark.parametrize(
    ("dtype", "mistake", "seen"),
    [
        (torch.float32, {"scale": 1.001}, {"output", "dq", "dk", "dv"}),
        (torch.float32, {"bits": 13}, {"output", "dq", "dk", "dv"}),
        (torch.float32, {"ahead": 1}, {"output", "dq", "dk", "dv"}),
        (torch.float32, {"delta": False}, {"dq", "dk"}),
        (torch.bfloat16, {"scale": 14**-0.5}, {"output", "dq", "dk", "dv"}),
        (torch.bfloat16, {"ahead": 1}, {"output", "dq", "dk", "dv"}),
        (torch.bfloat16, {"delta": False}, {"dq", "dk"}),
    ],
)
def test_mistakes_are_beyond_rounding(
    dtype: torch.dtype, mistake: dict[str, float], seen: set[str]
) -> None:
    of = truth(6, 2, 129, dtype)
    assert beyond_rounding(wrong(), of) == set()
    assert beyond_rounding(wrong(**mistake), of) == seen


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
def test_a_step_is_the_last_row(length: int, heads: int, groups: int, dtype: torch.dtype) -> None:
    q, k, v, _ = inputs(heads, groups, length, dtype)
    last = q[:, :, -1:]
    exact = causal_attention_reference(q.double(), k.double(), v.double(), scale=0.4)[:, :, -1:]
    allowed = torch.ones(1, length, dtype=torch.bool)
    bound = rounding_bounds([last, k, v, last], allowed, dtype, scale=0.4)[0]
    # In float64 the exact result is as far from the truth as ours may be.
    near = 2 if dtype == torch.float64 else 1
    for batch, free in product((1, 2), (0, 13, 600)):
        # Free slots are not attended, whatever number is left in them.
        slots = [
            torch.cat([x, torch.full_like(x[:, :, :1], 50).expand(-1, -1, free, -1)], 2)
            for x in (k[:batch], v[:batch])
        ]
        found = attention_step(last[:batch], *slots, length=length, scale=0.4)
        if not free:
            assert torch.equal(found, attention_step(last[:batch], k[:batch], v[:batch], scale=0.4))
        assert found.dtype == dtype
        assert bool(((found - exact[:batch]).abs() <= near * bound[:batch]).all())
