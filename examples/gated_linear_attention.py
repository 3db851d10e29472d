"""Linear attention whose state decays, by a share that each token and head decides.

The state of a head is S_t = a_t S_{t-1} + k_t v_t', read by o_t = S_t' q_t: with one share a_t
for a head, the recurrence of Mamba-2 (arXiv 2405.21060), or gated linear attention (arXiv
2312.06635) with one gate in place of one for each channel. Computed by chunks: within one as
attention without softmax, between chunks by the state, which is all that decoding remembers.

Axes: B batch, Q and T tokens of a chunk, H heads, K and V head width.
"""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from isoflop.variants import Costs, Frozen

PART = "attention"


class Config(Frozen):
    chunk: int = Field(default=32, ge=1)
    """Tokens that attend each other as pairs. It changes costs, and nothing of what is computed."""
    slow: float = 4.0
    """Added to the decay's logit: about exp(slow) tokens are remembered at first."""


def costs(config, model, block, tokens, convention):
    inner = model.heads * model.head_width
    weights = 4 * model.width * inner + model.width * model.heads
    whole, rest = divmod(tokens, config.chunk)
    pairs = whole * config.chunk**2 + rest**2
    if convention == "causal":
        pairs = (pairs + tokens) / 2
    return Costs(
        parameters=weights,
        flops=2 * tokens * weights + 4 * pairs * inner + 4 * tokens * inner * model.head_width,
        cache_values=inner * model.head_width,
    )


def build(config, model, block):
    return GatedLinearAttention(config, model.width, model.heads, model.head_width)


class GatedLinearAttention(nn.Module):
    def __init__(self, config, width, heads, head_width):
        super().__init__()
        self.chunk, self.slow, self.heads = config.chunk, config.slow, heads
        self.projected = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.decay = nn.Linear(width, heads, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.roles = {"decay.weight": "router"}

    def forward(self, x, cosines, sines):
        return self.decode(x, cosines, sines, None)[0]

    def decode(self, x, cosines, sines, state):
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.projected(x).chunk(3, -1))
        logs = F.logsigmoid(self.decay(x).float() + self.slow)
        if state is None:
            state = x.new_zeros(len(x), self.heads, q.shape[-1], q.shape[-1], dtype=torch.float32)
        mixed = []
        for parts in zip(*(one.split(self.chunk, 1) for one in (q, k, v, logs)), strict=True):
            found, state = self._chunk(*parts, state)
            mixed.append(found)
        mixed = torch.cat(mixed, 1)
        mixed = F.rms_norm(mixed, mixed.shape[-1:])
        return self.output(mixed.flatten(2).to(x.dtype)), state

    def _chunk(self, q, k, v, logs, state):
        """Return what a chunk reads, (B, Q, H, V), and the state behind it."""
        sums = logs.cumsum(1)
        later = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool, device=q.device).triu(1)
        left = (sums[:, :, None] - sums[:, None]).masked_fill(later[..., None], -math.inf).exp()
        scores = torch.einsum("bqhk,bthk->bqth", q, k) * left
        within = torch.einsum("bqth,bthv->bqhv", scores.to(v.dtype), v)
        before = torch.einsum("bqhk,bhkv->bqhv", q.float() * sums.exp()[..., None], state)
        last = sums[:, -1:]
        added = torch.einsum(
            "bthk,bthv->bhkv", k.float() * (last - sums).exp()[..., None], v.float()
        )
        return within + before, state * last[:, 0, :, None, None].exp() + added
