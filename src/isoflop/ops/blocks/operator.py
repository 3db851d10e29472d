"""Block attention as one operator, which compilers and checkpointing take as a whole.

The library's low-level calls define it: `torch.library.custom_op` would load torch's compiler with
the first call.

Axes: B batch, H query heads, G key/value heads, T time, K head width, S selected earlier blocks per
query.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from isoflop.ops.blocks import parts
from isoflop.ops.blocks.routing import block_layout, block_means, choose_blocks

# Its methods have no types in torch.
_LIBRARY: Any = torch.library.Library("isoflop", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "block_attention(Tensor q, Tensor k, Tensor v, Tensor? documents, Tensor? routing,"
    " int block_size, int top_k, float scale) -> (Tensor, Tensor, Tensor)"
)
_LIBRARY.define(
    "block_attention_backward(Tensor grad, Tensor[] inputs, Tensor[] results, Tensor? documents,"
    " int block_size, float scale) -> (Tensor, Tensor, Tensor)"
)

OPERATOR: Any = torch.ops.isoflop.block_attention.default
"""What selective checkpointing keeps, and graphs hold."""


class Path(Protocol):
    """A way to attend blocks, as `parts` tells."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, chosen: Tensor, block_size: int, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Return output and log-sum-exp."""

    def backward(
        self,
        grad: Tensor,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        chosen: Tensor,
        block_size: int,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v."""


def path_for(q: Tensor) -> Path:
    """Return Triton's kernels on CUDA where Triton is there, or else what torch has."""
    if not q.is_cuda or find_spec("triton") is None:
        return parts
    from isoflop.ops.blocks import triton

    return triton


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor | None,
    routing: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend the own block and earlier ones: those of `routing`, or else the gate's.

    Arguments are those of `block_attention`, checked. Autocast changes nothing here, as it could
    not in compiled code.

    Returns:
        Output (B, H, T, K), log-sum-exp (B, H, T) and routing (B, H, T, S), as in
        `BlockAttentionResult`. The output carries a gradient, which itself has none.
    """
    result: tuple[Tensor, Tensor, Tensor] = OPERATOR(
        q, k, v, documents, routing, block_size, top_k, scale
    )
    return result


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor | None,
    routing: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    layout = block_layout(q.shape[0], q.shape[2], block_size, documents, q.device)
    rows, keys, values = (layout.lay_out(x) for x in (q, k, v))
    if routing is None:
        with torch.autocast(q.device.type, enabled=False):
            means = block_means(keys, block_size)
            count = _selected(q, block_size, top_k)
            chosen = choose_blocks(rows, means, layout.first, block_size, count)
        routing = layout.routing(chosen)
    else:
        routing = routing.to(torch.int64, copy=True)
    out, lse = path_for(q).forward(
        _by_unit(rows, k),
        keys.flatten(0, 1),
        values.flatten(0, 1),
        _by_unit(layout.numbers(routing), k),
        block_size,
        scale,
    )
    out, lse = layout.take_back(out.view_as(rows)), lse.view(rows.shape[:3])
    return out, layout.take_back(lse, -math.inf), routing


def _shapes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    documents: Tensor | None,
    routing: Tensor | None,
    block_size: int,
    top_k: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    count = _selected(q, block_size, top_k) if routing is None else routing.shape[3]
    wide = torch.promote_types(q.dtype, torch.float32)
    return (
        q.new_empty(q.shape),
        q.new_empty(q.shape[:3], dtype=wide),
        q.new_empty((*q.shape[:3], count), dtype=torch.int64),
    )


def _backward(
    grad: Tensor,
    inputs: list[Tensor],
    results: list[Tensor],
    documents: Tensor | None,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of q, k and v, given the operator's inputs and results."""
    q, k, v = inputs
    output, lse, routing = results
    layout = block_layout(q.shape[0], q.shape[2], block_size, documents, q.device)
    # A slot without a token has no query and no gradient, and so adds none to the keys'.
    grad, q, k, v, output, lse = (layout.lay_out(x) for x in (grad, q, k, v, output, lse))
    dq, dk, dv = path_for(q).backward(
        _by_unit(grad, k),
        _by_unit(q, k),
        k.flatten(0, 1),
        v.flatten(0, 1),
        _by_unit(output, k),
        _by_unit(lse, k),
        _by_unit(layout.numbers(routing), k),
        block_size,
        scale,
    )
    return (
        layout.take_back(dq.view_as(q)),
        layout.take_back(dk.view_as(k)),
        layout.take_back(dv.view_as(v)),
    )


def _shapes_backward(
    grad: Tensor,
    inputs: list[Tensor],
    results: list[Tensor],
    documents: Tensor | None,
    block_size: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = inputs
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, documents, _, block_size, _, scale = inputs
    ctx.save_for_backward(q, k, v, *output, documents)
    ctx.block_size, ctx.scale = block_size, scale
    ctx.mark_non_differentiable(*output[1:])


@once_differentiable
def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    *saved, documents = ctx.saved_tensors
    gradients: tuple[Tensor, ...] = torch.ops.isoflop.block_attention_backward(
        grad, saved[:3], saved[3:], documents, ctx.block_size, ctx.scale
    )
    return *gradients, None, None, None, None, None


def _by_unit(x: Tensor, k: Tensor) -> Tensor:
    """Turn (B, H, slots, ...) into (B * G, H / G, slots, ...), given keys (B, G, ...).

    A unit is a batch row and a key head.
    """
    batch, groups = k.shape[:2]
    return x.reshape(batch * groups, x.shape[1] // groups, *x.shape[2:])


def _selected(q: Tensor, block_size: int, top_k: int) -> int:
    """Return S: a block that is earlier than another of its document is a whole one."""
    return min(top_k - 1, (q.shape[2] - 1) // block_size)


_LIBRARY.impl("block_attention", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("block_attention_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("isoflop::block_attention", _shapes, lib=_LIBRARY)
torch.library.register_fake("isoflop::block_attention_backward", _shapes_backward, lib=_LIBRARY)
torch.library.register_autograd(
    "isoflop::block_attention", _differentiate, setup_context=_keep, lib=_LIBRARY
)
