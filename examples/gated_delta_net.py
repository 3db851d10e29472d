"""The gated delta rule (arXiv 2412.06464): linear attention whose state is corrected, not added to.

The state of a head is S_t = a_t (S_{t-1} - b_t k_t (k_t' S_{t-1})) + b_t k_t v_t', read by
o_t = S_t' q_t: before a value is written at a key, the share b_t of what was there is taken away,
and all decays by a_t. Keys and queries have unit length; the short convolutions of the paper's
layer are left out. Computed by chunks (section 3.3 there): what the tokens of one write is the
solution of a triangular system, whose inverse is made by products, since those are counted.
It is what `chunk_gated_delta_rule` of fla computes, whose kernels need a GPU and count as free.

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
    chunk: int = Field(default=16, ge=1)
    """Tokens that are computed as pairs. It changes costs, and nothing of what is computed."""
    slow: float = 4.0
    """Added to the decay's logit: about exp(slow) tokens are remembered at first."""


def costs(config, model, block, tokens, convention):
    inner, width = model.heads * model.head_width, model.head_width
    weights = 5 * model.width * inner + 2 * model.width * model.heads
    whole, rest = divmod(tokens, config.chunk)
    chunks = [config.chunk] * whole + [rest]
    pairs = sum(n * (n + 1) / 2 if convention == "causal" else n**2 for n in chunks)
    inverses = sum(4 * doublings(n) * n**3 for n in chunks)
    return Costs(
        parameters=weights,
        flops=2 * tokens * weights
        + inner * (8 * pairs + 6 * tokens * width)
        + model.heads * inverses,
        cache_values=inner * width,
    )


def doublings(tokens):
    """Return how often the powers of a chunk's matrix are squared until they are zero."""
    return max(0, (tokens - 1).bit_length() - 1)


def build(config, model, block):
    return GatedDeltaNet(config, model.width, model.heads, model.head_width)


class GatedDeltaNet(nn.Module):
    def __init__(self, config, width, heads, head_width):
        super().__init__()
        self.chunk, self.slow, self.heads = config.chunk, config.slow, heads
        self.projected = nn.Linear(width, 4 * heads * head_width, bias=False)
        self.shares = nn.Linear(width, 2 * heads, bias=False)
        self.output = nn.Linear(heads * head_width, width, bias=False)
        self.roles = {"shares.weight": "router"}

    def forward(self, x, cosines, sines):
        return self.decode(x, cosines, sines, None)[0]

    def decode(self, x, cosines, sines, state):
        heads = (one.unflatten(-1, (self.heads, -1)) for one in self.projected(x).chunk(4, -1))
        shares = self.shares(x).unflatten(-1, (2, self.heads))
        with torch.autocast(x.device.type, enabled=False):
            exact = torch.promote_types(x.dtype, torch.float32)
            q, k, v, gate = (F.silu(one.to(exact)) for one in heads)
            q, k = F.normalize(q, dim=-1) / math.sqrt(q.shape[-1]), F.normalize(k, dim=-1)
            keep, write = shares.to(exact).unbind(2)
            keep, write = F.logsigmoid(keep + self.slow), write.sigmoid()
            if state is None:
                state = k.new_zeros(len(x), self.heads, k.shape[-1], v.shape[-1])
            read = []
            parts = (one.split(self.chunk, 1) for one in (q, k, v, keep, write))
            for q, k, v, keep, write in zip(*parts, strict=True):
                found, state = read_and_write(q, k, v, keep, write, state)
                read.append(found)
            mixed = torch.cat(read, 1)
            mixed = F.rms_norm(mixed, mixed.shape[-1:]) * gate
        return self.output(mixed.flatten(2).to(x.dtype)), state


def read_and_write(q, k, v, keep, write, state):
    """Return what the tokens of a chunk read, (B, Q, H, V), and the state behind them."""
    sums = keep.cumsum(1)
    gone = (sums[:, :, None] - sums[:, None]).permute(0, 3, 1, 2)
    later = torch.ones(gone.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    left = gone.masked_fill(later, -math.inf).exp()
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    sums, write = sums.mT[..., None], write.mT[..., None]
    # (1 + M) W = what is to be written, M being below its diagonal; -M to the power of Q is zero.
    power = -(write * (k @ k.mT) * left).tril(-1)
    one = torch.eye(power.shape[-1], dtype=power.dtype, device=power.device)
    inverse = one + power
    for _ in range(doublings(power.shape[-1])):
        power = power @ power
        inverse = inverse @ (one + power)
    written = inverse @ (write * (v - sums.exp() * (k @ state)))
    read = (left * (q @ k.mT)) @ written + (q * sums.exp()) @ state
    last = sums[:, :, -1:]
    state = state * last.exp() + (k * (last - sums).exp()).mT @ written
    return read.transpose(1, 2), state
