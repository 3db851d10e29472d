"""Triton's kernels on a CPU, by its interpreter, against the written-out reference."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from rounding import rounding_bounds
from torch import Tensor

from isoflop.ops import block_attention, block_attention_reference
from isoflop.ops.blocks import operator

# Triton reads the variable when it is first imported, which other tests may have done.
if find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip(
        "needs `pip install triton` and TRITON_INTERPRET=1 set before pytest starts",
        allow_module_level=True,
    )

from isoflop.ops.blocks import triton

TRUE = torch.float64
BATCH, LENGTH = 2, 45
NAMES = ("output", "dq", "dk", "dv")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:triton")


@pytest.fixture(autouse=True)
def by_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        operator, "path_for", lambda q: operator.parts if q.dtype == TRUE else triton
    )


def inputs(
    heads: int, groups: int, width: int, dtype: torch.dtype, length: int = LENGTH
) -> list[Tensor]:
    """q, k, v and the gradient of the result."""
    generator = torch.Generator().manual_seed(width)
    shapes = [(BATCH, heads, length, width), *2 * [(BATCH, groups, length, width)]]
    tensors = [torch.randn(s, generator=generator) for s in (*shapes, shapes[0])]
    return [x.to(dtype) for x in tensors]


def both_ways(function: Any, given: list[Tensor], **options: Any) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in given[:3]]
    result = function(*leaves, **options)
    gradients = torch.autograd.grad(result, leaves, given[3])
    return [x.detach().double() for x in (result, *gradients)]


def assert_off_by_rounding_alone(given: list[Tensor], block_size: int, top_k: int) -> None:
    dtype, length = given[0].dtype, given[0].shape[2]
    result = block_attention(*given[:3], block_size=block_size, top_k=top_k, details=True)
    routing = result.routing
    options: dict[str, Any] = {"block_size": block_size, "top_k": top_k, "routing": routing}
    wide = [x.double() for x in given]
    exact = both_ways(block_attention_reference, wide, **options)
    found = both_ways(block_attention, given, **options)
    block = torch.arange(length) // block_size
    chosen = (routing[..., None, :] == block[:, None]).any(-1) | (block == block[:, None])
    allowed = chosen & torch.ones(length, length, dtype=torch.bool).tril()
    bounds = rounding_bounds(
        given, allowed, dtype, scale=given[0].shape[-1] ** -0.5, parts=routing.shape[-1] + 1
    )
    for name, true, one, bound in zip(NAMES, exact, found, bounds, strict=True):
        assert bool(((one - true).abs() <= bound).all()), name
    log_sum_exp = block_attention(*wide[:3], **options, details=True).log_sum_exp
    torch.testing.assert_close(result.log_sum_exp.double(), log_sum_exp, rtol=1e-5, atol=1e-5)


# The own block alone, some, more than there are; blocks of less than a tile and of more than one.
@pytest.mark.parametrize(("block_size", "top_k"), [(16, 1), (7, 3), (8, 99), (20, 2)])
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (6, 2)])
@pytest.mark.parametrize(
    ("width", "dtype"), [(16, torch.float32), (24, torch.float32), (24, torch.float16)]
)
def test_is_off_by_rounding_alone(
    width: int, dtype: torch.dtype, heads: int, groups: int, block_size: int, top_k: int
) -> None:
    assert_off_by_rounding_alone(inputs(heads, groups, width, dtype), block_size, top_k)


def test_runs_and_blocks_of_many_tiles() -> None:
    # Tiles of 32 rows: blocks of 70 keys, and runs of hundreds of queries.
    assert_off_by_rounding_alone(inputs(3, 1, 16, torch.float32, length=200), 70, 2)


def test_some_units_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(6, 2, 16, torch.float32)
    expected = both_ways(block_attention, given, block_size=7, top_k=3)
    monkeypatch.setattr(triton, "PAIRS_AT_ONCE", 1)
    found = both_ways(block_attention, given, block_size=7, top_k=3)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_documents_and_padding() -> None:
    documents = torch.tensor([[-1] * 3 + [4] * 21 + [5] + [2] * 18 + [-1] * 2, [0] * 20 + [1] * 25])
    given = inputs(6, 2, 16, torch.float32)
    options: dict[str, Any] = {"block_size": 7, "top_k": 2, "documents": documents}
    expected = both_ways(block_attention_reference, [x.double() for x in given], **options)
    for one, other in zip(both_ways(block_attention, given, **options), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_double_precision_is_refused() -> None:
    q = torch.zeros(1, 1, 8, 16, dtype=TRUE)
    chosen = torch.full((1, 1, 8, 1), -1)
    with pytest.raises(ValueError, match=r"q is torch\.float64; expected float16, bfloat16 or"):
        triton.forward(q, q[0], q[0], chosen, 4, 1.0)
