"""Attention, feed-forward and the block they make. A block returns its update, not its sum.

Axes: B batch, T time, D width, H heads, G key/value heads, K head width.
"""

from __future__ import annotations

from typing import Protocol, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.config import (
    AttentionKernel,
    BlockAttention,
    FullAttention,
    Gelu,
    ModelConfig,
    Own,
    Recompute,
    SwiGlu,
)
from isoflop.model.own import OwnPart, Tolds
from isoflop.model.recompute import recomputed
from isoflop.ops import block_attention, causal_attention, rotate


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


class KeyConvolution(nn.Module):
    """k_t + silu(sum_i w_i k_{t-i}) over the last few keys, per channel (arXiv 2511.11571).

    Where the paper is silent: it is applied before the keys' norm and rotary positions.
    """

    def __init__(self, taps: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, taps))

    def forward(self, keys: Tensor, before: Tensor | None = None) -> Tensor:
        """Return keys of the shape of `keys`, (B, T, G, K).

        Args:
            keys: as projected.
            before: the taps - 1 keys before them, (B, taps - 1, G, K); None for zeros.
        """
        batch, length, groups, width = keys.shape
        channels, taps = self.weight.shape
        rows = keys.reshape(batch, length, channels).transpose(1, 2)
        if before is None:
            rows = F.pad(rows, (taps - 1, 0))
        else:
            rows = torch.cat([before.flatten(2).transpose(1, 2), rows], dim=-1)
        # Tap 0 meets the key itself, and conv1d's last tap does.
        mixed = F.conv1d(rows, self.weight.flip(1)[:, None].to(rows.dtype), groups=channels)
        return keys + F.silu(mixed.transpose(1, 2).reshape(batch, length, groups, width))


class Memory(Protocol):
    """What attention remembers of the tokens before those at hand, and takes up of these."""

    def preceding(self, keys: Tensor) -> Tensor | None:
        """Take up `keys` (B, T, G, K) as projected; return those that a convolution needs before.

        Those are (B, taps - 1, G, K); None at the start of a sequence.
        """

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take up keys and values (B, G, T, K); attend from `q` (B, H, T, K), giving its shape."""

    def through(self, own: nn.Module, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        """Return what attention or a block of one's own makes of `x` (B, T, D), by its `decode`."""


class SelfAttention(nn.Module):
    """Grouped-query causal self-attention with rotary positions, over all keys or by blocks.

    Args:
        config: the model.
        block: index of the block that it belongs to.
    """

    def __init__(self, config: ModelConfig, block: int) -> None:
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
        self.key_convolution: KeyConvolution | None = None
        match config.attention:
            case FullAttention():
                self.by_block: BlockAttention | None = None
            case BlockAttention(key_convolution=taps):
                self.by_block = None if config.attends_fully(block) else config.attention
                if taps:
                    self.key_convolution = KeyConvolution(taps, self.groups * self.head_width)
            case Own():
                raise AssertionError("attention of one's own is an OwnPart")
            case _:
                assert_never(config.attention)
        self.full = self.by_block is None or self.by_block.ends_full
        """Whether all keys are attended now; a model starts out as it is when finished."""
        self.kernel: AttentionKernel | None = None
        """What attends all keys in training. A finished model is evaluated by the rule everywhere,
        so that whoever loads it finds the losses of its record."""

    def forward(
        self, x: Tensor, cosines: Tensor, sines: Tensor, memory: Memory | None = None
    ) -> Tensor:
        """Attend from `x` (B, T, D), at positions with the given rotary tables.

        Args:
            x: tokens, which attend each other causally.
            cosines: rotary table, (T, K/2) or (B, T, K/2).
            sines: like `cosines`.
            memory: of earlier tokens, attended too; None where there are none.
        """
        batch, length, _ = x.shape
        heads = self.query_key_value(x).view(batch, length, -1, self.head_width)
        q, k, v = heads.split((self.heads, self.groups, self.groups), dim=2)
        if self.key_convolution is not None:
            k = self.key_convolution(k, None if memory is None else memory.preceding(k))
        q = rotate(self.query_norm(q), cosines, sines).to(v.dtype)
        k = rotate(self.key_norm(k), cosines, sines).to(v.dtype)
        attend = self.attend if memory is None else memory.attend
        mixed = attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        result: Tensor = self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        return result

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend causally from q (B, H, T, K) to k and v (B, G, T, K), to all keys or by blocks."""
        if self.full or self.by_block is None:
            return causal_attention(q, k, v, kernel=self.kernel if self.training else None)
        chosen = self.by_block
        return block_attention(q, k, v, block_size=chosen.block_size, top_k=chosen.top_k)


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


def feed_forward(config: ModelConfig, block: int) -> nn.Module:
    """Return the feed-forward module that `config` names for a block."""
    match config.feed_forward:
        case SwiGlu():
            return SwiGluFeedForward(config.width, config.hidden)
        case Gelu():
            return GeluFeedForward(config.width, config.hidden)
        case Own():
            return OwnPart(config.feed_forward, "feed_forward", config, block)
        case _:
            assert_never(config.feed_forward)


class Block(nn.Module):
    """Self-attention and feed-forward, pre-norm: returns f(x), and the caller adds it to x.

    Args:
        config: the model.
        index: which of its blocks this is.
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.attention_norm = RmsNorm(config.width, config.norm_epsilon)
        self.attention: SelfAttention | OwnPart
        if isinstance(config.attention, Own):
            self.attention = OwnPart(config.attention, "attention", config, index)
        else:
            self.attention = SelfAttention(config, index)
        self.feed_forward_norm = RmsNorm(config.width, config.norm_epsilon)
        self.feed_forward = feed_forward(config, index)
        self.recompute: Recompute = "none"
        """What the backward pass computes again instead of keeping it."""

    def forward(
        self, x: Tensor, cosines: Tensor, sines: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tolds]:
        """Return the update f(x) of shape (B, T, D), without the outer residual, and what parts of
        one's own told beside it.

        Arguments are those of `SelfAttention`.
        """
        if memory is not None or not torch.is_grad_enabled():
            return self._update(x, cosines, sines, memory)
        return recomputed(self.recompute, self._update, x, cosines, sines)

    def _update(
        self, x: Tensor, cosines: Tensor, sines: Tensor, memory: Memory | None = None
    ) -> tuple[Tensor, Tolds]:
        told: Tolds = {}
        normed = self.attention_norm(x)
        if isinstance(self.attention, OwnPart):
            attended, told = self.attention(normed, cosines, sines, memory=memory)
        else:
            attended = self.attention(normed, cosines, sines, memory)
        # The sum keeps the residual stream's dtype under autocast.
        normed = self.feed_forward_norm(x + attended)
        if isinstance(self.feed_forward, OwnPart):
            fed, more = self.feed_forward(normed)
            return attended + fed, {**told, **more}
        return attended + self.feed_forward(normed), told


def block_of(config: ModelConfig, index: int) -> Block | OwnPart:
    """Return a block of the model, without what depth wraps around it."""
    if config.block is not None:
        return OwnPart(config.block, "block", config, index)
    return Block(config, index)
