"""Fixed skip: the control for Mixture-of-Depths in which position alone decides.

In each routed block the same tokens are processed always: of T tokens floor(capacity T), evenly
spread. So it is causal, has no router, and costs what routing at the same capacity costs without
one. What a learned router wins over it is what choosing tokens is worth.

Axes: B batch, T time, C processed tokens, D width, K head width.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from pydantic import Field

from isoflop.config import Frozen, ModelConfig
from isoflop.variants.protocols import Costs, Inner

if TYPE_CHECKING:
    from torch import Tensor, nn

PART = "depth"
MOST_PERIOD = 1 << 10
"""Tokens after which the pattern repeats, at most."""


class Config(Frozen):
    """Which blocks skip how much."""

    capacity: float = Field(gt=0, le=1)
    """Share of a sequence's tokens that a routed block processes."""
    every: int = Field(default=2, ge=1, le=1000)
    """Block i is routed when i % every == every - 1."""

    @property
    def share(self) -> Fraction:
        """The capacity as a ratio of whole numbers, so that no rounding moves a token."""
        return Fraction(self.capacity).limit_denominator(MOST_PERIOD)


def period(config: Config) -> int:
    """Return what the number of blocks is a multiple of."""
    return config.every


def processed(config: Config, model: ModelConfig, block: int, tokens: int, progress: float) -> int:
    """Return how many of a sequence's tokens a block processes."""
    if block % config.every != config.every - 1:
        return tokens
    return math.floor(tokens * config.share)


def costs(config: Config, model: ModelConfig, block: int, tokens: int, convention: str) -> Costs:
    """Return what deciding costs: nothing."""
    return Costs(parameters=0, flops=0)


def build(config: Config, model: ModelConfig, block: int) -> nn.Module | None:
    """Return what skips tokens around a block; None where it processes all."""
    if block % config.every != config.every - 1:
        return None
    import torch

    class FixedSkip(torch.nn.Module):
        """Processes token t when floor((t + 1) capacity) is above floor(t capacity)."""

        def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, inner: Inner) -> Tensor:
            """Return the stream (B, T, D) with the updates of some tokens added."""
            taken, of = config.share.numerator, config.share.denominator
            count = x.shape[1] * taken // of
            if not count:
                return x
            # Number i, from 1, is the last token up to which less than i were due.
            numbers = torch.arange(1, count + 1, device=x.device)
            positions = (numbers * of + taken - 1) // taken - 1
            update = inner(x[:, positions], cosines[positions], sines[positions])
            return x.index_add(1, positions, update.to(x.dtype))

    return FixedSkip()
