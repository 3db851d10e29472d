"""Causal attention: an obvious reference and the fast path.

Axes: B batch, H query heads, G key/value heads, T time, K head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from isoflop.config import AttentionKernel
from isoflop.ops.tiled import tiled_attention

# Up to this length the scores of a chunk of queries stay in cache on a CPU, and matrix products
# in bfloat16 beat torch's tiled kernel, which computes in float32 there.
DENSE_LENGTH = 1024
CHUNK = 128
# Slots of a bfloat16 cache on a CPU, over its tokens, up to which products run over free slots
# too: they need memory without gaps, and would copy the cache to have it.
MOST_SLOTS = 4
_BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def causal_attention_reference(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
) -> Tensor:
    """Softmax attention over all earlier positions, written out.

    Args:
        q: (B, H, T, K).
        k: (B, G, T, K) with G dividing H; query head h reads key head h // (H/G).
        v: like `k`.
        scale: multiplies the scores; None for K ** -0.5.

    Returns:
        (B, H, T, K).
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    weights: Tensor = scores.masked_fill(future, float("-inf")).softmax(-1)
    return weights @ v


def causal_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    kernel: AttentionKernel | None = None,
) -> Tensor:
    """Softmax attention over all earlier positions.

    Same arguments and result as `causal_attention_reference`, and `kernel`, which computes it; None
    for a rule: short bfloat16 sequences on a CPU take chunked dense products, everything else
    torch's fused kernel.

    Raises:
        RuntimeError: that kernel of torch takes no such tensors.
    """
    wanted = q.shape[-1] ** -0.5 if scale is None else scale
    short = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= DENSE_LENGTH
    if kernel is None and short:
        return _chunked(q, k, v, wanted)
    if kernel == "tiled":
        return tiled_attention(q, k, v, wanted)
    if kernel in _BACKENDS:
        with sdpa_kernel(_BACKENDS[kernel]):
            return _fused(q, k, v, scale)
    return _fused(q, k, v, scale)


def _fused(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, is_causal=True, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
    )


def attention_step(
    q: Tensor, k: Tensor, v: Tensor, *, length: int | None = None, scale: float | None = None
) -> Tensor:
    """Softmax attention from the last token of every sequence to all cached ones.

    Args:
        q: of the last token, (B, H, 1, K).
        k: cached keys, the last token's among them, (B, G, S, K).
        v: like `k`.
        length: tokens of every sequence; slots behind them hold finite numbers, which get no
            weight. None for S.
        scale: multiplies the scores; None for K ** -0.5.

    Returns:
        (B, H, 1, K).
    """
    batch, heads, _, width = q.shape
    groups, slots = k.shape[1:3]
    length = slots if length is None else length
    on_cpu = q.device.type == "cpu"
    whole = on_cpu and q.dtype == torch.bfloat16 and slots <= MOST_SLOTS * length
    if not whole:
        k, v = k[:, :, :length], v[:, :, :length]
    if not on_cpu or (batch == 1 and heads == groups and q.dtype == torch.float32):
        return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=heads != groups)
    # A CPU's fused kernel is slower for more rows than one, and for key heads that are shared.
    grouped = q.reshape(batch, groups, -1, width)
    scores = grouped @ k.transpose(-1, -2)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = scores[..., :length].to(wide) * (width**-0.5 if scale is None else scale)
    weights = scores.softmax(-1).to(v.dtype)
    if whole and slots > length:
        weights = F.pad(weights, (0, slots - length))
    return (weights @ v).view(batch, heads, 1, width)


def _chunked(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """Attend chunk by chunk of queries, each to the keys up to its own end."""
    batch, heads, length, width = q.shape
    groups = k.shape[1]
    q = q * scale
    outputs = []
    for start in range(0, length, CHUNK):
        stop = min(start + CHUNK, length)
        rows = stop - start
        queries = q[:, :, start:stop].reshape(batch, groups, heads // groups * rows, width)
        scores = (queries @ k[:, :, :stop].transpose(-1, -2)).float()
        scores = scores.view(batch, heads, rows, stop)
        future = (
            torch.arange(stop, device=q.device)
            > torch.arange(start, stop, device=q.device)[:, None]
        )
        weights = scores.masked_fill(future, float("-inf")).softmax(-1).to(v.dtype)
        mixed = weights.view(batch, groups, heads // groups * rows, stop) @ v[:, :, :stop]
        outputs.append(mixed.view(batch, heads, rows, width))
    return torch.cat(outputs, dim=2)
