"""Expert choice: each expert takes the tokens that score best with it (arXiv 2202.09368).

Every expert is full, so nothing has to be balanced; but which tokens it takes depends on the tokens
to come: a leak. So the headline decision is `threshold`: an expert takes a token whose probability
reaches the running mean of the smallest one taken under `top_k`, which a token knows by itself.

Axes: B batch, T time, D width, E experts, C tokens that an expert takes, H its hidden width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic import Field

from isoflop.config import Frozen, ModelConfig
from isoflop.variants.mixture_of_experts import sizes
from isoflop.variants.protocols import Costs, Told, follow

if TYPE_CHECKING:
    from torch import Tensor, nn

PART = "feed_forward"
DECISIONS = ("threshold", "top_k")


class Config(Frozen):
    """How many experts there are, and how many tokens each takes."""

    experts: int = Field(default=8, ge=1, le=4096)
    """E."""
    capacity: float = Field(default=2.0, gt=0, le=64)
    """Experts that a token goes to on average: C = capacity T / E."""
    hidden: float = Field(default=1.0, gt=0, le=64)
    """Hidden width of an expert over the model's, to a multiple of 8."""


def _taken(config: Config, tokens: int) -> int:
    """Return C, the tokens of a sequence that each expert takes under `top_k`."""
    return min(tokens, max(1, math.floor(config.capacity * tokens / config.experts)))


def costs(config: Config, model: ModelConfig, block: int, tokens: int, convention: str) -> Costs:
    """Return what the experts cost when each takes its C tokens, as in training."""
    hidden, each, router = sizes(config.hidden, config.experts, model)
    rows = config.experts * _taken(config, tokens)
    return Costs(
        parameters=router + config.experts * each,
        active=round(router + rows / max(1, tokens) * each),
        flops=2 * tokens * router + 2 * rows * each,
        kept_values=rows * (2 * model.width + 4 * hidden),
    )


def build(config: Config, model: ModelConfig, block: int) -> nn.Module:
    """Return the router and its experts."""
    import torch
    import torch.nn.functional as F

    hidden, _, _ = sizes(config.hidden, config.experts, model)
    width, experts = model.width, config.experts

    class Choosing(torch.nn.Module):
        """Experts that choose."""

        decision: str
        threshold: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.router = torch.nn.Linear(width, experts, bias=False)
            self.gate_up = torch.nn.Parameter(torch.empty(experts, 2 * hidden, width))
            self.down = torch.nn.Parameter(torch.empty(experts, width, hidden))
            self.roles = {"router.weight": "router", "gate_up": "hidden", "down": "output"}
            self.register_buffer("threshold", torch.zeros(experts))

        def forward(self, x: Tensor) -> tuple[Tensor, Told]:
            """Map (B, T, D) to (B, T, D)."""
            with torch.autocast(x.device.type, enabled=False):
                odds = F.linear(x.float(), self.router.weight.float()).softmax(-1)
            if self.decision != "top_k":
                return self.by_threshold(x, odds), {}
            best = odds.mT.topk(_taken(config, x.shape[1]), dim=-1)
            index = best.indices.flatten(1)[..., None].expand(-1, -1, width)
            tokens = x.gather(1, index).view(len(x), experts, -1, width)
            made = self.made(tokens) * best.values[..., None].to(x.dtype)
            result = torch.zeros_like(x, dtype=made.dtype).scatter_add(1, index, made.flatten(1, 2))
            return result, {"smallest": best.values[..., -1].mean(0)}

        def made(self, tokens: Tensor) -> Tensor:
            """Return what each expert makes of its tokens, (B, E, C, D)."""
            gate, up = torch.einsum("becd,ehd->bech", tokens, self.gate_up).chunk(2, dim=-1)
            return torch.einsum("bech,edh->becd", F.silu(gate) * up, self.down)

        def by_threshold(self, x: Tensor, odds: Tensor) -> Tensor:
            """Return the result where each token decides for itself, for evaluation."""
            result = torch.zeros_like(x)
            for expert in range(experts):
                weight = odds[..., expert] * (odds[..., expert] >= self.threshold[expert])
                gate, up = F.linear(x, self.gate_up[expert]).chunk(2, dim=-1)
                made = F.linear(F.silu(gate) * up, self.down[expert])
                result = result + weight[..., None].to(made.dtype) * made
            return result

        def after_step(self, told: Told) -> None:
            """Follow the smallest probability that each expert took."""
            follow(self.threshold, told["smallest"])

    return Choosing()
