"""Causal attention in products over tiles of scores that stay in cache, as one operator.

Nothing of its size is kept for the backward pass, which computes scores again: it keeps what it was
given, as flash attention does. On a CPU without wide vectors it is the faster of the two where
sequences are neither short nor long; `training.attending` finds out.

Axes: B batch, H query heads, G key/value heads, T time, K head width, U units (a batch row and a
key/value head), h query heads of a unit. Rows are queries by time, a position's heads together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

QUERIES = 128
"""Positions of a tile."""
SCORES = 2**18
"""Of tiles at work at a time, for each thread: a megabyte in float32."""

# Its methods have no types in torch.
_LIBRARY: Any = torch.library.Library("isoflop", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("tiled_attention(Tensor q, Tensor k, Tensor v, float scale) -> Tensor")
_LIBRARY.define(
    "tiled_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, float scale)"
    " -> (Tensor, Tensor, Tensor)"
)

OPERATOR: Any = torch.ops.isoflop.tiled_attention.default
"""What selective checkpointing keeps, and graphs hold."""


def tiled_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Softmax attention over all earlier positions.

    Args:
        q: (B, H, T, K).
        k: (B, G, T, K) with G dividing H.
        v: like `k`.
        scale: multiplies the scores.

    Returns:
        (B, H, T, K), with a gradient, which itself has none.
    """
    result: Tensor = OPERATOR(q, k, v, scale)
    return result


def _forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    queries, keys, values = _rows(q, k) * scale, _rows(k, k), _rows(v, k)
    out = queries.new_empty(queries.shape)
    for units, rows, start, stop in _tiles(q, k):
        seen = keys[units, :stop]
        weights = _weights(queries[units, rows], seen, start)
        torch.bmm(weights, values[units, :stop], out=out[units, rows])
    return _by_head(out, q, k)


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    queries, keys, values, grads = _rows(q, k) * scale, _rows(k, k), _rows(v, k), _rows(grad, k)
    dq = queries.new_empty(queries.shape)
    # Products are faster with positions as columns.
    dk, dv = (torch.zeros_like(x.mT, memory_format=torch.contiguous_format) for x in (keys, values))
    for units, rows, start, stop in _tiles(q, k):
        seen, before, slope = keys[units, :stop], queries[units, rows], grads[units, rows]
        weights = _weights(before, seen, start)
        dv[units, :, :stop].baddbmm_(slope.mT, weights)
        scores = torch.bmm(slope, values[units, :stop].mT)
        torch._softmax_backward_data(scores, weights, -1, scores.dtype, grad_input=scores)
        torch.bmm(scores, seen, out=dq[units, rows])
        dk[units, :, :stop].baddbmm_(before.mT, scores)
    dk, dv = (x.mT.contiguous().view(k.shape) for x in (dk, dv))
    return _by_head(dq.mul_(scale), q, k), dk, dv


def _weights(queries: Tensor, keys: Tensor, start: int) -> Tensor:
    """Return attention's weights, (U, rows, stop), of scaled queries from position `start` on."""
    scores = torch.bmm(queries, keys.mT)
    positions = keys.shape[1] - start
    at = torch.arange(queries.shape[1], device=keys.device) // (queries.shape[1] // positions)
    future = torch.arange(positions, device=keys.device) > at[:, None]
    scores[:, :, start:].masked_fill_(future, -math.inf)
    return torch.softmax(scores, -1, out=scores)


def _tiles(q: Tensor, k: Tensor) -> Iterator[tuple[slice, slice, int, int]]:
    """Yield some units, rows, and the positions where these start and stop."""
    length, heads, units = q.shape[2], q.shape[1] // k.shape[1], k.shape[0] * k.shape[1]
    scores = heads * min(QUERIES, length) * length
    at_once = max(1, SCORES * torch.get_num_threads() // scores)
    for first in range(0, units, at_once):
        for start in range(0, length, QUERIES):
            stop = min(start + QUERIES, length)
            yield slice(first, first + at_once), slice(start * heads, stop * heads), start, stop


def _rows(x: Tensor, k: Tensor) -> Tensor:
    """Turn (B, H or G, T, K) into rows (U, T * h, K)."""
    (batch, heads, length, width), groups = x.shape, k.shape[1]
    apart = x.reshape(batch, groups, heads // groups, length, width).transpose(2, 3)
    return apart.reshape(batch * groups, -1, width)


def _by_head(rows: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Turn rows (U, T * h, K) into the shape of `q`."""
    batch, heads, length, width = q.shape
    apart = rows.view(batch, k.shape[1], length, heads // k.shape[1], width)
    return apart.transpose(2, 3).reshape(q.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    q, k, v, ctx.scale = inputs
    ctx.save_for_backward(q, k, v)


@once_differentiable
def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients: tuple[Tensor, ...] = torch.ops.isoflop.tiled_attention_backward(
        grad, *ctx.saved_tensors, ctx.scale
    )
    return *gradients, None


def _shape(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    return q.new_empty(q.shape)


def _shapes_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in inputs[:3])


_LIBRARY.impl("tiled_attention", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("tiled_attention_backward", _backward, "CompositeExplicitAutograd")
torch.library.register_fake("isoflop::tiled_attention", _shape, lib=_LIBRARY)
torch.library.register_fake("isoflop::tiled_attention_backward", _shapes_backward, lib=_LIBRARY)
torch.library.register_autograd(
    "isoflop::tiled_attention", _differentiate, setup_context=_keep, lib=_LIBRARY
)
