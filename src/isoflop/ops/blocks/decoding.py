"""Block attention a token at a time, over a cache that keeps block means beside the keys.

Axes: B batch, H query heads, G key/value heads, K head width, N whole blocks, S cached tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from isoflop.ops.blocks.routing import NONE, largest_blocks


def block_attention_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    means: Tensor,
    *,
    block_size: int,
    top_k: int,
    scale: float | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """Attend from the last token of every sequence, as `block_attention` does.

    Only the blocks that are attended are read: top_k * block_size keys, however many are cached.

    Args:
        q: of the last token, (B, H, 1, K).
        k: cached keys, the last token's among them, (B, G, S, K).
        v: like `k`.
        means: of the whole blocks of `k`, (B, G, N, K), in float32 at least.
        block_size: keys in a block.
        top_k: blocks attended, the own one among them.
        scale: multiplies the scores; None for K ** -0.5.
        lengths: tokens of each sequence, (B,), at least 1; what lies behind them in the cache is
            not read. None where all have S.

    Returns:
        (B, H, 1, K).
    """
    batch, heads, _, width = q.shape
    groups, cached = k.shape[1:3]
    if lengths is None:
        lengths = torch.full((batch,), cached, device=q.device)
    last = lengths - 1
    own = last // block_size
    grouped = q.view(batch, groups, heads // groups, width)

    chosen = own[:, None, None, None].expand(-1, groups, heads // groups, -1)
    count = min(top_k - 1, means.shape[2])
    if count:
        # As in training, autocast does not round what blocks are chosen by.
        with torch.autocast(q.device.type, enabled=False):
            scores = grouped.to(means.dtype) @ means.transpose(-1, -2)
        earlier = torch.arange(means.shape[2], device=q.device) < own[:, None]
        scores = scores.masked_fill(~earlier[:, None, None], -math.inf)
        chosen = torch.cat([largest_blocks(scores, count), chosen], dim=-1)

    keys = chosen[..., None] * block_size + torch.arange(block_size, device=q.device)
    ends = last[:, None, None, None, None]
    allowed = (chosen[..., None] != NONE) & (keys <= ends)
    # A slot without a token may hold anything, and zero times that need not be zero.
    keys, allowed = keys.clamp(min=0).minimum(ends).flatten(2), allowed.flatten(3)
    attended_k, attended_v = (_tokens_at(x, keys).view(*allowed.shape, width) for x in (k, v))
    scores = torch.einsum("bgrk,bgrsk->bgrs", grouped, attended_k).to(means.dtype)
    scores = scores * (width**-0.5 if scale is None else scale)
    weights = scores.masked_fill(~allowed, -math.inf).softmax(-1).to(v.dtype)
    return torch.einsum("bgrs,bgrsk->bgrk", weights, attended_v).reshape(batch, heads, 1, width)


def _tokens_at(x: Tensor, positions: Tensor) -> Tensor:
    """Return the tokens of `x` (B, G, S, K) at `positions` (B, G, M), (B, G, M, K).

    Tokens are copied whole, many times as fast as by `gather`, which goes value by value.
    """
    batch, groups, cached, width = x.shape
    if x.stride(3) != 1 or any(stride % width for stride in x.stride()[:3]):
        x = x.contiguous()
    # Strides in tokens: the cache may hold more of them than are at hand.
    per_row, per_group, per_token = (stride // width for stride in x.stride()[:3])
    tokens = (batch - 1) * per_row + (groups - 1) * per_group + (cached - 1) * per_token + 1
    rows = torch.arange(batch, device=x.device)[:, None, None] * per_row
    rows = rows + torch.arange(groups, device=x.device)[:, None] * per_group
    at = (rows + positions * per_token).flatten()
    found = x.as_strided((tokens, width), (width, 1)).index_select(0, at)
    return found.view(batch, groups, -1, width)
