"""Block attention against its written-out reference, and against what its definition implies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rounding import rounding_bounds
from torch import Tensor

from isoflop.ops import block_attention, block_attention_reference, causal_attention_reference
from isoflop.ops.blocks import parts, routing
from isoflop.ops.blocks.kernels import CpuKernel

# Below, at and above a multiple of the block, a single token, and one block only.
LENGTHS = [1, 5, 55, 56, 61]
BLOCKS = [(7, 3), (7, 1), (8, 2), (1, 4)]
HEADS = [(3, 3), (6, 2), (5, 1)]
TRUE = torch.float64
NAMES = ("output", "dq", "dk", "dv")


def inputs(
    length: int, heads: int = 6, groups: int = 2, dtype: torch.dtype = TRUE, batch: int = 2
) -> list[Tensor]:
    """q, k, v and the gradient of the result, rounded to `dtype`."""
    generator = torch.Generator().manual_seed(length)
    shapes = [(batch, heads, length, 14), *2 * [(batch, groups, length, 14)]]
    tensors = [torch.randn(s, generator=generator) for s in (*shapes, shapes[0])]
    return [tensor.to(dtype) for tensor in tensors]


def both_ways(
    function: Any, given: list[Tensor], dtype: torch.dtype, **options: Any
) -> list[Tensor]:
    """The result and the gradients of q, k and v in float64, computed in `dtype`."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in given[:3]]
    result = function(*leaves, **options)
    assert result.dtype == dtype
    gradients = torch.autograd.grad(result, leaves, given[3].to(dtype))
    return [tensor.detach().double() for tensor in (result, *gradients)]


@pytest.mark.parametrize(("heads", "groups"), HEADS)
@pytest.mark.parametrize(("block_size", "top_k"), BLOCKS)
@pytest.mark.parametrize("length", LENGTHS)
def test_is_the_reference(
    length: int, block_size: int, top_k: int, heads: int, groups: int
) -> None:
    given = inputs(length, heads, groups)
    options = {"block_size": block_size, "top_k": top_k}
    expected = both_ways(block_attention_reference, given, TRUE, **options)
    result = both_ways(block_attention, given, TRUE, **options)
    for name, true, found in zip(NAMES, expected, result, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-10, msg=name)


def keys_of(routing: Tensor, length: int, block_size: int) -> Tensor:
    """The keys of each query, (B, H, T, S): those of its own and its chosen blocks."""
    time = torch.arange(length)
    block = time // block_size
    chosen = (routing[..., None, :] == block[:, None]).any(-1)
    return (chosen | (block == block[:, None])) & (time <= time[:, None])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(
    ("length", "heads", "block_size", "top_k"),
    [(1, 6, 16, 2), (63, 6, 16, 2), (300, 6, 32, 3), (1000, 2, 64, 3)],
)
def test_is_off_by_rounding_alone(
    length: int, heads: int, block_size: int, top_k: int, dtype: torch.dtype
) -> None:
    given = inputs(length, heads, dtype=dtype, batch=1 if length == 1000 else 2)
    # One choice of blocks for all: a near-tie that rounding flips is no error of the attention.
    routing = block_attention(*given[:3], block_size=block_size, top_k=top_k, details=True).routing
    options = {"block_size": block_size, "top_k": top_k, "routing": routing}
    exact = both_ways(block_attention_reference, given, TRUE, **options)
    found = both_ways(block_attention, given, dtype, **options)
    bounds = rounding_bounds(given, keys_of(routing, length, block_size), dtype, parts=top_k)
    for name, true, one, bound in zip(NAMES, exact, found, bounds, strict=True):
        assert bool(((one - true).abs() <= bound).all()), name


@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_are_those_of_the_function(groups: int) -> None:
    # Few and narrow heads: every element of an input is moved in turn.
    given = [x[..., :2].contiguous() for x in inputs(11, 2, groups, batch=1)]
    routing = block_attention(*given[:3], block_size=2, top_k=3, details=True).routing
    leaves = [x.requires_grad_() for x in given[:3]]

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return block_attention(q, k, v, block_size=2, top_k=3, routing=routing)

    assert torch.autograd.gradcheck(attend, leaves)


@pytest.mark.parametrize("groups", [2, 6])
def test_documents_and_padding(groups: int) -> None:
    # Padding on the left, between and on the right; a document of one token; one that fills blocks.
    documents = torch.tensor(
        [[-1] * 3 + [4] * 21 + [5] + [2] * 14 + [-1] * 2, [0] * 9 + [1] * 7 + [-1] * 5 + [7] * 20]
    )
    given = inputs(41, 6, groups)
    options = {"block_size": 7, "top_k": 2, "documents": documents}
    expected = both_ways(block_attention_reference, given, TRUE, **options)
    result = both_ways(block_attention, given, TRUE, **options)
    for name, true, found in zip(NAMES, expected, result, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-10, atol=1e-10, msg=name)
    padding = documents < 0
    assert bool((result[0].transpose(1, 2)[padding] == 0).all())
    for gradient in result[1:]:
        assert bool((gradient.transpose(1, 2)[padding] == 0).all())
    alone = block_attention(*(x[:1, :, 3:24] for x in given[:3]), block_size=7, top_k=2)
    torch.testing.assert_close(result[0][:1, :, 3:24], alone)


def test_a_row_of_padding_only_gives_zeros() -> None:
    given = inputs(9)
    documents = torch.stack([torch.full((9,), -1), torch.zeros(9, dtype=torch.int64)])
    result = block_attention(*given[:3], block_size=4, top_k=2, documents=documents, details=True)
    assert bool((result.output[0] == 0).all())
    assert bool((result.log_sum_exp[0] == -torch.inf).all())
    torch.testing.assert_close(
        result.output[1:], block_attention(*(x[1:] for x in given[:3]), block_size=4, top_k=2)
    )


@pytest.mark.parametrize(("block_size", "top_k", "length"), [(7, 8, 56), (9, 7, 61), (64, 1, 61)])
def test_blocks_that_cover_everything_are_full_attention(
    block_size: int, top_k: int, length: int
) -> None:
    q, k, v, _ = inputs(length)
    options = {"block_size": block_size, "top_k": top_k, "scale": 0.3}
    full = causal_attention_reference(q, k, v, scale=0.3)
    torch.testing.assert_close(block_attention(q, k, v, **options), full)
    # Also where the details ask for the blocks one by one.
    torch.testing.assert_close(block_attention(q, k, v, **options, details=True).output, full)
    fewer = block_attention(q, k, v, block_size=7, top_k=2, scale=0.3)
    assert float((fewer - full).abs().max()) > 0.1


def test_top_1_is_the_own_block() -> None:
    q, k, v, _ = inputs(33)
    result = block_attention(q, k, v, block_size=8, top_k=1)
    for start in range(0, 33, 8):
        own = slice(start, start + 8)
        expected = causal_attention_reference(q[:, :, own], k[:, :, own], v[:, :, own])
        torch.testing.assert_close(result[:, :, own], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, TRUE])
def test_the_future_does_not_reach_the_past(dtype: torch.dtype) -> None:
    q, k, v, _ = inputs(61, dtype=dtype)
    changed = [x.clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, 38:] = 9 - x[:, :, 38:]
    leaves = [x.requires_grad_() for x in (q, k, v)]
    before = block_attention(*leaves, block_size=7, top_k=3)
    after = block_attention(*changed, block_size=7, top_k=3)
    # Rows are gathered into other tiles, so that either may be off by rounding.
    routing = block_attention(q, k, v, block_size=7, top_k=3, details=True).routing
    bound = rounding_bounds([q, k, v, q], keys_of(routing, 61, 7), dtype, parts=3)[0]
    apart = (before - after).detach().abs()
    assert bool((apart <= 2 * bound)[:, :, :38].all())
    assert bool((apart > 2 * bound)[:, :, 38].any())
    for gradient in torch.autograd.grad(before[:, :, :38].sum(), leaves):
        assert bool((gradient[:, :, 38:] == 0).all())
        assert bool((gradient[:, :, :38] != 0).any())


def test_the_order_of_earlier_blocks_does_not_matter() -> None:
    q, k, v, _ = inputs(40)
    moved = torch.arange(32).view(4, 8)[[2, 0, 3, 1]].flatten()
    other = [torch.cat([x[:, :, moved], x[:, :, 32:]], dim=2) for x in (k, v)]
    options = {"block_size": 8, "top_k": 3}
    expected = block_attention(q, k, v, **options)[:, :, 32:]
    torch.testing.assert_close(block_attention(q, *other, **options)[:, :, 32:], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, TRUE])
def test_of_equal_blocks_the_earliest_are_attended(dtype: torch.dtype) -> None:
    q, k, v, _ = inputs(48, 3, 3, dtype)
    same = k[:, :, :8].repeat(1, 1, 6, 1)
    routing = block_attention(q, same, v, block_size=8, top_k=3, details=True).routing
    own = torch.arange(48) // 8
    for t in range(48):
        expected = [0, 1][: own[t]] + [-1] * (2 - min(2, int(own[t])))
        assert bool((routing[:, :, t] == torch.tensor(expected)).all()), t


def test_blocks_that_nobody_selects_get_gradients_of_their_own_queries_only() -> None:
    q, k, v, grad = inputs(40, 3, 3)
    k[:, :, 8:16] = -10 * q.mean()
    routing = torch.zeros(2, 3, 40, 1, dtype=torch.int64)
    routing[:, :, :8] = -1
    leaves = [x.requires_grad_() for x in (q, k, v)]
    output = block_attention(*leaves, block_size=8, top_k=2, routing=routing)
    grad[:, :, 8:16] = 0
    _, dk, dv = torch.autograd.grad(output, leaves, grad)
    assert bool((dk[:, :, 8:16] == 0).all())
    assert bool((dv[:, :, 8:16] == 0).all())
    assert bool((dv[:, :, :8] != 0).any())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_very_large_logits(dtype: torch.dtype) -> None:
    given = inputs(61, dtype=dtype)
    given[0] *= 300
    given[1] *= 300
    routing = block_attention(*given[:3], block_size=7, top_k=3, details=True).routing
    options = {"block_size": 7, "top_k": 3, "routing": routing}
    result = both_ways(block_attention, given, dtype, **options)
    assert all(bool(x.isfinite().all()) for x in result)
    q, k, v = (x.detach().double() for x in given[:3])
    exact = block_attention_reference(q, k, v, **options)
    k = k.repeat_interleave(3, 1)
    scores = (q @ k.mT * 14**-0.5).masked_fill(~keys_of(routing, 61, 7), -torch.inf)
    best = scores.topk(2).values
    # A score is off by its products' sizes: stored twice, and 14 of them added in float32.
    eps = torch.finfo(dtype).eps
    off = (eps + 7 * torch.finfo(torch.float32).eps) * (q.abs() @ k.mT.abs() * 14**-0.5).amax(-1)
    # One key takes all the weight, except where rounding of the scores may turn a near-tie.
    clear = best[..., 0] - best[..., 1] > 2 * off + 100
    assert float(clear.double().mean()) > 0.8
    apart = (result[0] - exact).abs() / exact.abs().clamp(min=1)
    assert float(apart[clear].max()) <= eps


def test_details() -> None:
    q, k, v, _ = inputs(61)
    result = block_attention(q, k, v, block_size=7, top_k=3, details=True)
    torch.testing.assert_close(result.output, block_attention(q, k, v, block_size=7, top_k=3))
    scores = q @ k.repeat_interleave(3, 1).transpose(-1, -2) * 14**-0.5
    time = torch.arange(61)
    chosen = (result.routing[..., None, :] == (time // 7)[:, None]).any(-1)
    own = (time // 7) == (time // 7)[:, None]
    allowed = (chosen | own) & (time <= time[:, None])
    expected = scores.masked_fill(~allowed, -torch.inf).logsumexp(-1)
    torch.testing.assert_close(result.log_sum_exp, expected)
    again = block_attention(q, k, v, block_size=7, top_k=3, routing=result.routing, details=True)
    assert torch.equal(again.routing, result.routing)
    torch.testing.assert_close(again.output, result.output)


@pytest.mark.parametrize("limit", ["SCORES_AT_ONCE", "ROWS_AT_ONCE"])
def test_holding_less_at_once_changes_nothing(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(61)
    expected = both_ways(block_attention, given, TRUE, block_size=7, top_k=3)
    room = routing if limit == "SCORES_AT_ONCE" else parts
    monkeypatch.setattr(room, limit, 1)
    monkeypatch.setattr(CpuKernel, "rows_at_once", 1)
    result = both_ways(block_attention, given, TRUE, block_size=7, top_k=3)
    for true, found in zip(expected, result, strict=True):
        torch.testing.assert_close(found, true)


def test_strided_inputs() -> None:
    given = inputs(61)
    expected = both_ways(block_attention, given, TRUE, block_size=7, top_k=3)
    strided = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in given]
    result = both_ways(block_attention, strided, TRUE, block_size=7, top_k=3)
    for true, found in zip(expected, result, strict=True):
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": 0}, "block_size is 0; expected at least 1"),
        ({"top_k": 0}, "top_k is 0; expected at least 1, the own block"),
        ({"k": torch.zeros(2, 5, 61, 14)}, "G dividing H"),
        ({"v": torch.zeros(2, 2, 60, 14)}, "expected \\(B, H, T, K\\)"),
        ({"documents": torch.zeros(2, 60)}, "documents has the shape \\(2, 60\\)"),
        ({"routing": torch.zeros(2, 2, 61, 1)}, "routing has the shape"),
    ],
)
def test_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    q, k, v, _ = inputs(61)
    given = {"q": q, "k": k, "v": v, "block_size": 7, "top_k": 3, **change}
    if "k" in change:
        given["v"] = change["k"]
    for function in (block_attention, block_attention_reference):
        with pytest.raises(ValueError, match=message):
            function(**given)
