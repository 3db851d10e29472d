"""Attention, feed-forward and the block they make. A block returns its update, not its sum.

Axes: B batch, T time, D width, H heads, G key/value heads, K head width.
"""

from __future__ import annotations

from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.config import FullAttention, Gelu, ModelConfig, SwiGlu
from isoflop.ops import causal_attention, rotate


class RmsNorm(nn.Module):
    """Root-mean-square normalisation with a learned scale (arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (..., width) over its root mean square, times the scale."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * scale).to(x.dtype) * self.weight


class SelfAttention(nn.Module):
    """Grouped-query causal self-attention with rotary positions."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.groups = config.heads, config.key_value_heads
        self.head_width = config.head_width
        projected = (self.heads + 2 * self.groups) * self.head_width
        self.query_key_value = nn.Linear(config.width, projected, bias=False)
        self.output = nn.Linear(self.heads * self.head_width, config.width, bias=False)
        self.query_norm: nn.Module = nn.Identity()
        self.key_norm: nn.Module = nn.Identity()
        if config.query_key_norm:
            self.query_norm = RmsNorm(self.head_width, config.norm_epsilon)
            self.key_norm = RmsNorm(self.head_width, config.norm_epsilon)
        match config.attention:
            case FullAttention():
                self.attend = causal_attention
            case _:
                assert_never(config.attention)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Attend within `x` (B, T, D) at positions with the given rotary tables."""
        batch, length, _ = x.shape
        heads = self.query_key_value(x).view(batch, length, -1, self.head_width)
        q, k, v = heads.split((self.heads, self.groups, self.groups), dim=2)
        q = rotate(self.query_norm(q), cosines, sines).to(v.dtype)
        k = rotate(self.key_norm(k), cosines, sines).to(v.dtype)
        mixed = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        result: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        return result


class SwiGluFeedForward(nn.Module):
    """W2(silu(W1 x) * W3 x) (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        result: Tensor = self.down(F.silu(gate) * up)
        return result


class GeluFeedForward(nn.Module):
    """W2 gelu(W1 x)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        result: Tensor = self.down(F.gelu(self.up(x)))
        return result


def feed_forward(config: ModelConfig) -> nn.Module:
    """Return the feed-forward module that `config` names."""
    match config.feed_forward:
        case SwiGlu():
            return SwiGluFeedForward(config.width, config.hidden)
        case Gelu():
            return GeluFeedForward(config.width, config.hidden)
        case _:
            assert_never(config.feed_forward)


class Block(nn.Module):
    """Self-attention and feed-forward, pre-norm: returns f(x), and the caller adds it to x."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(config.width, config.norm_epsilon)
        self.attention = SelfAttention(config)
        self.feed_forward_norm = RmsNorm(config.width, config.norm_epsilon)
        self.feed_forward = feed_forward(config)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Return the update f(x) of shape (B, T, D), without the outer residual."""
        attended = self.attention(self.attention_norm(x), cosines, sines)
        # The sum keeps the residual stream's dtype under autocast.
        middle = x + attended
        update: Tensor = attended + self.feed_forward(self.feed_forward_norm(middle))
        return update
