"""Mixture of experts: token-choice top-k, an auxiliary loss, and a bias updated without one."""

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from isoflop.variants import Costs, Frozen

PART = "feed_forward"


class Config(Frozen):
    experts: int = Field(default=4, ge=1)
    top_k: int = 1
    balance: float = 0.01


def costs(config, model, block, tokens, convention):
    each = 2 * model.width * model.hidden
    router = model.width * config.experts
    active = router + config.top_k * each
    return Costs(
        parameters=router + config.experts * each, active=active, flops=2 * tokens * active
    )


def build(config, model, block):
    return Experts(config, model.width, model.hidden)


class Experts(nn.Module):
    def __init__(self, config, width, hidden):
        super().__init__()
        self.roles = {"router.weight": "router", "down": "output"}
        self.config = config
        self.router = nn.Linear(width, config.experts, bias=False)
        self.up = nn.Parameter(torch.empty(config.experts, hidden, width))
        self.down = nn.Parameter(torch.empty(config.experts, width, hidden))
        self.register_buffer("bias", torch.zeros(config.experts))

    def forward(self, x):
        scores = self.router(x).float().softmax(-1)
        chosen = (scores + self.bias).topk(self.config.top_k, dim=-1).indices
        mask = torch.zeros_like(scores).scatter(-1, chosen, 1.0)
        weights = (scores * mask).to(x.dtype)
        hidden = F.gelu(torch.einsum("btd,ehd->bteh", x, self.up))
        out = torch.einsum("bteh,edh,bte->btd", hidden, self.down, weights)
        # Of each sequence by itself, so that it does not matter how many are held at a time.
        load = mask.mean(1) / self.config.top_k
        balance = self.config.experts * (load * scores.mean(1)).sum(-1).mean()
        return out, {"loss": self.config.balance * balance, "load": load.mean(0)}

    def after_step(self, told):
        self.bias += 0.001 * torch.sign(told["load"].mean() - told["load"])
