"""Differential attention (arXiv 2410.05258): one attention map is taken from another.

As there a head's two maps are of half its width, and a share of the second that is learned, near
0.8 - 0.6 exp(-0.3 block), is taken from the first. The norm of each head has no scale of its own.

Axes: B batch, Q queries, T keys, H heads, K head width.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from isoflop.ops import rotate
from isoflop.variants import Costs, Frozen

PART = "attention"


class Config(Frozen):
    """No settings."""


def costs(config, model, block, tokens, convention):
    inner = model.heads * model.head_width
    weights = 4 * model.width * inner
    pairs = tokens * (tokens + 1) / 2 if convention == "causal" else tokens**2
    # Two maps of half the width; they are subtracted before they meet the values.
    return Costs(
        parameters=weights + 2 * model.head_width,
        flops=2 * tokens * weights + 4 * pairs * inner,
        cache_values=2 * tokens * inner,
    )


def build(config, model, block):
    if model.head_width % 4:
        raise ValueError(f"head_width is {model.head_width}; expected a multiple of 4")
    return DifferentialAttention(model.width, model.heads, model.head_width, block)


class DifferentialAttention(nn.Module):
    def __init__(self, width, heads, head_width, block):
        super().__init__()
        self.heads = heads
        # A buffer, since a number that differs by block would be compiled anew for each.
        self.register_buffer("usual", torch.tensor(0.8 - 0.6 * math.exp(-0.3 * block)))
        self.projected = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.share = nn.Parameter(torch.empty(4, head_width // 2))
        self.roles = {"share": "router"}  # which starts small, but not at zero

    def forward(self, x, cosines, sines):
        return self.decode(x, cosines, sines, None)[0]

    def decode(self, x, cosines, sines, state):
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.projected(x).chunk(3, -1))
        q, k = (
            rotate(one.unflatten(-1, (2, -1)).flatten(2, 3), cosines[..., ::2], sines[..., ::2])
            for one in (q, k)
        )
        k = k.to(v.dtype)
        if state is not None:
            k, v = torch.cat([state[0], k], 1), torch.cat([state[1], v], 1)
        scores = torch.einsum("bqhk,bthk->bhqt", q.to(v.dtype), k) / math.sqrt(k.shape[-1])
        queries, keys = scores.shape[-2:]
        later = torch.ones(queries, keys, dtype=torch.bool, device=x.device).triu(
            1 + keys - queries
        )
        maps = scores.float().masked_fill(later, -math.inf).softmax(-1)
        one, two = maps.unflatten(1, (self.heads, 2)).unbind(2)
        a, b, c, d = self.share.float()
        share = (a * b).sum().exp() - (c * d).sum().exp() + self.usual
        mixed = torch.einsum("bhqt,bthk->bqhk", (one - share * two).to(v.dtype), v)
        mixed = F.rms_norm(mixed, mixed.shape[-1:]) * (1 - self.usual)
        return self.output(mixed.flatten(2).to(x.dtype)), (k, v)
