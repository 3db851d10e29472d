"""Expert choice with one expert: it takes the tokens that score best, looking ahead in training."""

import torch
from torch import nn

from isoflop.variants import Costs, Frozen

PART = "feed_forward"
DECISIONS = ("threshold", "top_k")


class Config(Frozen):
    share: float = 0.5


def costs(config, model, block, tokens, convention):
    weights = 2 * model.width * model.hidden
    active = model.width + round(config.share * weights)
    return Costs(parameters=model.width + weights, active=active, flops=2 * tokens * active)


def build(config, model, block):
    return Choice(config.share, model.width, model.hidden)


class Choice(nn.Module):
    def __init__(self, share, width, hidden):
        super().__init__()
        self.share = share
        self.router = nn.Linear(width, 1, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.register_buffer("threshold", torch.zeros(()))

    def forward(self, x):
        scores = self.router(x).squeeze(-1)
        lowest = scores.topk(max(1, round(self.share * x.shape[1])), dim=-1).values[:, -1:]
        taken = scores >= (lowest if self.decision == "top_k" else self.threshold)
        update = self.down(self.up(x).relu()) * (scores * taken).unsqueeze(-1)
        return update, {"lowest": lowest.detach().mean()}

    def after_step(self, told):
        self.threshold.copy_(told["lowest"])
