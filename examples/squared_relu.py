"""A feed-forward of two matrices with relu(x)^2 between them (Primer, arXiv 2109.08668)."""

from torch import nn

from isoflop.variants import Costs, Frozen

PART = "feed_forward"


class Config(Frozen):
    """Its settings."""

    expand: float = 1.5
    """Inner width over SwiGLU's, whose three matrices have then as many weights as these two."""


def inner(config, model):
    return round(config.expand * model.hidden)


def costs(config, model, block, tokens, convention):
    weights = 2 * model.width * inner(config, model)
    return Costs(parameters=weights, flops=2 * tokens * weights)


def build(config, model, block):
    return SquaredRelu(model.width, inner(config, model))


class SquaredRelu(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x):
        """Map (B, T, D) to (B, T, D), which is added to the stream."""
        return self.down(self.up(x).relu().square())
