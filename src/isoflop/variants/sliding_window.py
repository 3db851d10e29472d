"""Sliding-window attention: each query attends the last W keys (Mistral 7B, arXiv 2310.06825).

Optionally every n-th block attends fully, and the first keys are always attended (attention sinks,
arXiv 2309.17453). In a routed block the window is over the tokens that it processes; positions stay
those of the text.

Axes: B batch, T time, D width, H query heads, G key/value heads, K head width, W window, S sinks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from isoflop.config import Frozen, ModelConfig
from isoflop.variants.protocols import Costs, State

if TYPE_CHECKING:
    from torch import Tensor, nn

PART = "attention"


class Config(Frozen):
    """How far a query looks."""

    window: int = Field(default=512, ge=1, le=10**9)
    """W, keys that a query attends, its own among them."""
    full_every: int = Field(default=0, ge=0, le=1000)
    """Block i attends fully when i % full_every == full_every - 1; 0 for none."""
    sinks: int = Field(default=0, ge=0, le=10**6)
    """S, first keys of the sequence that every query attends besides."""


def period(config: Config) -> int:
    """Return what the number of blocks is a multiple of."""
    return max(1, config.full_every)


def _is_full(config: Config, block: int) -> bool:
    return config.full_every > 0 and block % config.full_every == config.full_every - 1


def _pairs(config: Config, tokens: int) -> int:
    """Return the pairs of query and key that are attended in a sequence."""
    near = min(config.window, tokens)
    pairs = near * (near + 1) // 2 + (tokens - near) * near
    # Query t reaches back to key t - W + 1, so it meets min(S, t - W + 1) sinks before that.
    beyond = max(0, tokens - config.window)
    few = min(config.sinks, beyond)
    return pairs + few * (few + 1) // 2 + (beyond - few) * few


def costs(config: Config, model: ModelConfig, block: int, tokens: int, convention: str) -> Costs:
    """Return projections, and scores with the keys that a query may attend.

    Under `full`, where full attention is charged for T^2 pairs, a query of the window is charged
    for the 2 W + S keys of its chunk, wherever it stands.
    """
    inner = model.heads * model.head_width
    keys = model.key_value_heads * model.head_width
    weights = 2 * model.width * (inner + keys)
    norms = 2 * model.head_width if model.query_key_norm else 0
    window, full = config.window, _is_full(config, block)
    wide = full or tokens <= window
    if convention == "full":
        chunks = -(-tokens // window)
        pairs = tokens**2 if wide else chunks * window * (2 * window + config.sinks)
    elif wide:
        pairs = tokens * (tokens + 1) // 2
    else:
        pairs = _pairs(config, tokens)
    return Costs(
        parameters=weights + norms,
        flops=2 * tokens * weights + 4 * inner * pairs,
        # The next query brings its own key.
        cache_values=2 * keys * (tokens if full else min(tokens, window - 1 + config.sinks)),
    )


def windowed(q: Tensor, k: Tensor, v: Tensor, window: int, sinks: int) -> Tensor:
    """Attend within a window and to sinks, chunks of W queries to the 2 W keys around them.

    Args:
        q: queries, (B, H, T, K).
        k: keys, (B, G, T, K).
        v: values, (B, G, T, K).
        window: W.
        sinks: S.
    """
    import torch
    import torch.nn.functional as F

    from isoflop.ops import causal_attention

    (batch, heads, length, width), groups = q.shape, k.shape[1]
    if length <= window:
        return causal_attention(q, k, v)
    chunks = -(-length // window)
    behind = chunks * window - length

    def around(rows: Tensor) -> Tensor:
        """Return what each chunk sees, (B chunks, H, S + 2 W, K), sinks first."""
        padded = F.pad(rows, (0, 0, window, behind))
        seen = padded.unfold(2, 2 * window, window).mT
        first = rows[:, :, None, :sinks].expand(-1, -1, chunks, -1, -1)
        seen = torch.cat([first, seen], 3).repeat_interleave(heads // groups, 1)
        return seen.transpose(1, 2).flatten(0, 1)

    positions = torch.arange(chunks * window, device=q.device).view(chunks, window, 1)
    first = torch.arange(min(sinks, length), device=q.device)
    seen = torch.cat([positions[..., 0] - window, positions[..., 0]], 1)[:, None]
    back = positions - seen
    near = (back >= 0) & (back < window) & (seen >= 0)
    allowed = torch.cat([positions - first >= window, near], 2)
    q = F.pad(q, (0, 0, 0, behind)).view(batch, heads, chunks, window, width)
    q = q.transpose(1, 2).flatten(0, 1)
    mask = allowed.repeat(batch, 1, 1)[:, None]
    mixed = F.scaled_dot_product_attention(q, around(k), around(v), attn_mask=mask)
    mixed = mixed.view(batch, chunks, heads, window, width).transpose(1, 2)
    return mixed.flatten(2, 3)[:, :, :length]


def build(config: Config, model: ModelConfig, block: int) -> nn.Module:
    """Return the attention of a block."""
    import torch
    import torch.nn.functional as F

    from isoflop.ops import causal_attention, rotate

    heads, groups, head_width = model.heads, model.key_value_heads, model.head_width
    full, window, sinks = _is_full(config, block), config.window, config.sinks

    class SlidingWindow(torch.nn.Module):
        """Projections as of full attention, and scores with the keys of the window and sinks."""

        def __init__(self) -> None:
            super().__init__()
            rows = (heads + 2 * groups) * head_width
            self.query_key_value = torch.nn.Linear(model.width, rows, bias=False)
            self.output = torch.nn.Linear(heads * head_width, model.width, bias=False)
            self.query_norm = self.key_norm = None
            if model.query_key_norm:
                self.query_norm = torch.nn.RMSNorm(head_width, model.norm_epsilon)
                self.key_norm = torch.nn.RMSNorm(head_width, model.norm_epsilon)

        def heads_of(
            self, x: Tensor, cosines: Tensor, sines: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            """Return queries (B, H, T, K), keys and values (B, G, T, K), positions applied."""
            projected = self.query_key_value(x).view(*x.shape[:2], -1, head_width)
            q, k, v = projected.split((heads, groups, groups), dim=2)
            if self.query_norm is not None and self.key_norm is not None:
                q, k = self.query_norm(q), self.key_norm(k)
            q, k = (rotate(one, cosines, sines).to(v.dtype) for one in (q, k))
            return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

        def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
            """Map (B, T, D) to (B, T, D)."""
            q, k, v = self.heads_of(x, cosines, sines)
            mixed = causal_attention(q, k, v) if full else windowed(q, k, v, window, sinks)
            result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
            return result

        def decode(
            self, x: Tensor, cosines: Tensor, sines: Tensor, state: State | None
        ) -> tuple[Tensor, State]:
            """Go on from the keys and values kept: sinks and the last W."""
            q, k, v = self.heads_of(x, cosines, sines)
            if state is None:
                mixed = causal_attention(q, k, v) if full else windowed(q, k, v, window, sinks)
            else:
                k, v = (torch.cat([old, new], 2) for old, new in zip(state, (k, v), strict=True))
                mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=heads != groups)
            if not full and k.shape[2] > sinks + window - 1:
                # The next query's own key makes W with the last W - 1 of these.
                last = k.shape[2] - (window - 1)
                k, v = (torch.cat([one[:, :, :sinks], one[:, :, last:]], 2) for one in (k, v))
            result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
            return result, (k, v)

    return SlidingWindow()
