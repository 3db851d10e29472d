"""A block that is gone through several times with the same weights (arXiv 2507.10524, section 2).

With `depth = { kind = "top_k", ... }` beside it, tokens that a router picks go through it, and the
others around it: Mixture-of-Recursions with two depths, each block repeated in place. A model of as
many parameters costs `times` as much, so it is compared at fewer parameters or fewer tokens.

Axes: B batch, T time, H heads, G key/value heads, K head width.
"""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from isoflop.ops import causal_attention, rotate
from isoflop.variants import Costs, Frozen

PART = "block"


class Config(Frozen):
    times: int = Field(default=2, ge=1, le=16)
    """How often the block is gone through."""


def costs(config, model, block, tokens, convention):
    inner, keys = model.heads * model.head_width, model.key_value_heads * model.head_width
    weights = 2 * model.width * (inner + keys) + 3 * model.width * model.hidden
    pairs = tokens * (tokens + 1) / 2 if convention == "causal" else tokens**2
    return Costs(
        parameters=weights + 2 * model.width,
        flops=config.times * (2 * tokens * weights + 4 * pairs * inner),
        active=config.times * weights,
        cache_values=config.times * 2 * tokens * keys,
    )


def build(config, model, block):
    return RecursiveBlock(config.times, model)


class RecursiveBlock(nn.Module):
    def __init__(self, times, model):
        super().__init__()
        self.times, self.width = times, model.head_width
        self.heads, self.groups = model.heads, model.key_value_heads
        self.normed = model.query_key_norm
        self.norms = nn.ModuleList(nn.RMSNorm(model.width, model.norm_epsilon) for _ in range(2))
        rows = (model.heads + 2 * model.key_value_heads) * model.head_width
        self.query_key_value = nn.Linear(model.width, rows, bias=False)
        self.output = nn.Linear(model.heads * model.head_width, model.width, bias=False)
        self.gate_up = nn.Linear(model.width, 2 * model.hidden, bias=False)
        self.down = nn.Linear(model.hidden, model.width, bias=False)

    def forward(self, x, cosines, sines):
        return self.decode(x, cosines, sines, None)[0]

    def decode(self, x, cosines, sines, state):
        stream, kept = x, []
        for index in range(self.times):
            before = None if state is None else state[index]
            mixed, now = self.attended(self.norms[0](stream), cosines, sines, before)
            stream, kept = stream + mixed, [*kept, now]
            gate, up = self.gate_up(self.norms[1](stream)).chunk(2, -1)
            stream = stream + self.down(F.silu(gate) * up)
        return stream - x, kept

    def attended(self, x, cosines, sines, state):
        """Return what attention adds, and its keys and values, (B, G, T, K)."""
        heads = self.query_key_value(x).unflatten(-1, (-1, self.width))
        q, k, v = heads.split((self.heads, self.groups, self.groups), 2)
        if self.normed:
            q, k = (F.rms_norm(one, one.shape[-1:]) for one in (q, k))
        q, k = (rotate(one, cosines, sines).to(v.dtype) for one in (q, k))
        q, k, v = (one.transpose(1, 2) for one in (q, k, v))
        if state is None:
            mixed = causal_attention(q, k, v)
        else:
            k, v = torch.cat([state[0], k], 2), torch.cat([state[1], v], 2)
            mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.groups)
        return self.output(mixed.transpose(1, 2).flatten(2)), (k, v)
