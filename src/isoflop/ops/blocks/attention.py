"""Mixture of Block Attention (arXiv 2502.13189): the fast path.

Keys are split into blocks. A query attends its own block causally and, of the earlier blocks, the
top_k - 1 whose mean key has the largest product with it. `top_k` counts the own block.

Axes: B batch, H query heads, G key/value heads, T time, K head width, N key blocks, S selected
earlier blocks per query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, overload

from torch import Tensor

from isoflop.ops.attention import causal_attention
from isoflop.ops.blocks.flash_moba import flash_moba_attention, flash_moba_can
from isoflop.ops.blocks.operator import attend
from isoflop.ops.blocks.reference import check_block_attention


@dataclass(frozen=True)
class BlockAttentionResult:
    """What block attention computed, and what it attended."""

    output: Tensor
    """(B, H, T, K)."""
    log_sum_exp: Tensor
    """Of the scaled scores attended, (B, H, T), float32 at least; -inf at padding. It carries no
    gradient."""
    routing: Tensor
    """Earlier blocks attended, (B, H, T, S), counted from the start of the document; -1 for
    none."""


@overload
def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = ...,
    documents: Tensor | None = ...,
    routing: Tensor | None = ...,
    details: Literal[False] = ...,
) -> Tensor: ...


@overload
def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = ...,
    documents: Tensor | None = ...,
    routing: Tensor | None = ...,
    details: Literal[True],
) -> BlockAttentionResult: ...


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = None,
    documents: Tensor | None = None,
    routing: Tensor | None = None,
    details: bool = False,
) -> Tensor | BlockAttentionResult:
    """Attend the own block and the best earlier ones (Mixture of Block Attention, section 2.2).

    A block is chosen by the product of the query with the block's mean key, taken in float32 at
    least, for every query head on its own; of equal ones the earliest. Choosing passes no
    gradient. Where top_k * block_size >= T this is full attention, and runs as such.

    Args:
        q: (B, H, T, K), positions already applied.
        k: (B, G, T, K) with G dividing H; query head h reads key head h // (H/G).
        v: like `k`.
        block_size: keys in a block; the last block may be partial.
        top_k: blocks attended, the own one among them.
        scale: multiplies the scores; None for K ** -0.5.
        documents: (B, T) integers: runs of one number are documents, which do not attend each
            other and whose blocks are counted from their start; negative numbers are padding,
            which is not attended and gets zeros. None for one document per row.
        routing: blocks to attend besides the own one, (B, H, T, S), as in
            `BlockAttentionResult`, in place of the gate; those must be distinct and earlier.
        details: return a `BlockAttentionResult`.

    Returns:
        (B, H, T, K), or the result with its log-sum-exp and routing.

    Raises:
        ValueError: shapes do not fit, or `block_size` or `top_k` is below 1.
    """
    check_block_attention(q, k, v, block_size, top_k, documents, routing)
    length, width = q.shape[2:]
    scale = width**-0.5 if scale is None else scale
    if documents is None and routing is None and not details:
        if top_k * block_size >= length:
            return causal_attention(q, k, v, scale=scale)
        if flash_moba_can(q):
            return flash_moba_attention(q, k, v, block_size, top_k, scale)
    # What is kept for the backward pass is laid out once.
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    output, lse, attended = attend(q, k, v, documents, routing, block_size, top_k, scale)
    return BlockAttentionResult(output, lse, attended) if details else output
