"""Skips a sequence's last tokens, more of them as training goes on; counts what it is told."""

from pydantic import Field
from torch import nn

from isoflop.variants import Costs, Frozen

PART = "depth"
SCHEDULED = True


class Config(Frozen):
    capacity: float = Field(default=0.5, gt=0, le=1)
    """Of the finished model; 1 at first."""


def processed(config, model, block, tokens, progress):
    return max(1, round((1 - progress * (1 - config.capacity)) * tokens))


def costs(config, model, block, tokens, convention):
    return Costs(parameters=0, flops=0)


def build(config, model, block):
    return Skip(lambda tokens, share: processed(config, model, block, tokens, share))


class Skip(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.kept, self.share = kept, 1.0

    def progress(self, share):
        self.share = share

    def forward(self, x, cosines, sines, inner):
        n = self.kept(x.shape[1], self.share if self.training else 1.0)
        update = inner(x[:, :n], cosines[:n], sines[:n])
        return x + nn.functional.pad(update, (0, 0, 0, x.shape[1] - n))
