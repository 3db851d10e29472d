"""Block attention as one operator: what compilers, checkpointing and autograd are told of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from isoflop.model.recompute import recomputed
from isoflop.ops import BLOCK_ATTENTION, block_attention

WITHOUT_COMPILER = """
import sys, torch, isoflop.model
from isoflop.ops import block_attention
q = torch.randn(1, 2, 24, 8, requires_grad=True)
block_attention(q, q, q, block_size=4, top_k=2).sum().backward()
sys.exit("torch._dynamo" in sys.modules)
"""


def inputs(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 6, 61, 14), *2 * [(2, 2, 61, 14)]]
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.filterwarnings("ignore")
def test_it_is_what_it_says_it_is(dtype: torch.dtype, packed: bool) -> None:
    documents = torch.tensor([[0] * 30 + [1] * 31, [2] * 58 + [-1] * 3]) if packed else None
    given = inputs(dtype)
    result = BLOCK_ATTENTION(*given, documents, None, 7, 3, 0.3)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    for routing in (None, result[2]):
        torch.library.opcheck(
            BLOCK_ATTENTION, (*given, documents, routing, 7, 3, 0.3), test_utils=checks
        )
    kept = [x.detach() for x in (*given, *result)]
    backward = torch.ops.isoflop.block_attention_backward.default
    torch.library.opcheck(
        backward, (kept[3], kept[:3], kept[3:], documents, 7, 0.3), test_utils=checks
    )


def test_nothing_of_it_needs_the_compiler() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], check=True)


def test_it_is_differentiated_once() -> None:
    given = inputs()
    output = block_attention(*given, block_size=7, top_k=3)
    gradients = torch.autograd.grad(output.square().sum(), given, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradients[0].sum().backward()


def test_autocast_changes_neither_the_choice_nor_the_result() -> None:
    for dtype in (torch.bfloat16, torch.float32):
        given = inputs(dtype)
        expected = block_attention(*given, block_size=7, top_k=3)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(block_attention(*given, block_size=7, top_k=3), expected)


class Counted(TorchDispatchMode):
    """How often block attention runs."""

    calls = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.calls += function is BLOCK_ATTENTION
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("kind", "calls"), [("none", 1), ("selective", 1), ("full", 2)])
def test_selective_recomputing_keeps_it(kind, calls) -> None:  # type: ignore[no-untyped-def]
    given = inputs()

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return block_attention(q * 2, k, v, block_size=7, top_k=3)

    expected = torch.autograd.grad(attend(*given).sum(), given)
    with Counted() as counted:
        found = torch.autograd.grad(recomputed(kind, attend, *given).sum(), given)
    assert counted.calls == calls
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
