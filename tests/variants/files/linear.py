"""Linear attention; its cache is a sum over the tokens so far (T, that is, at any length)."""

import torch
import torch.nn.functional as F
from torch import nn

from isoflop.variants import Costs, Frozen

PART = "attention"


class Config(Frozen):
    scale: float = 0.1


def costs(config, model, block, tokens, convention):
    inner, state = model.heads * model.head_width, model.heads * model.head_width**2
    weights = 4 * model.width * inner
    return Costs(
        parameters=weights, flops=2 * tokens * weights + 4 * tokens * state, cache_values=state
    )


def build(config, model, block):
    return Linear(config.scale, model.heads, model.width, model.heads * model.head_width)


class Linear(nn.Module):
    def __init__(self, scale, heads, width, inner):
        super().__init__()
        self.scale, self.heads = scale, heads
        self.projected = nn.Linear(width, 3 * inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(self, x, cosines, sines):
        return self.decode(x, cosines, sines, None)[0]

    def decode(self, x, cosines, sines, state):
        q, k, v = (one.unflatten(-1, (self.heads, -1)) for one in self.projected(x).chunk(3, -1))
        sums = ((F.elu(k) + 1).unsqueeze(-1) @ v.unsqueeze(-2)).cumsum(1)
        sums = sums if state is None else sums + state
        mixed = self.scale * torch.einsum("bthk,bthkv->bthv", F.elu(q) + 1, sums)
        return self.output(mixed.flatten(2)), sums[:, -1:]
