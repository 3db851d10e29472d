"""Routing as in Mixture-of-Depths with what its ablations change (arXiv 2404.02258, section 3).

Against `top_k`, which ships as a class of its own: a capacity for each routed block, a capacity
that falls during training, a router that never learns, a gate that is one. There is no predictor;
the causal decision is a threshold on the router's logit, the running mean of the k-th largest.

Axes: B batch, T time, C processed tokens, D width, K head width.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from isoflop.config import Frozen, ModelConfig
from isoflop.variants.protocols import Costs, Inner, Told, follow

if TYPE_CHECKING:
    from torch import Tensor, nn

PART = "depth"
DECISIONS = ("threshold", "top_k")
SCHEDULED = True


class Config(Frozen):
    """Which blocks process how much of a sequence, and who chooses."""

    capacity: float | tuple[float, ...] = 0.125
    """Share of a sequence's tokens that a routed block processes; a list goes from the first routed
    block to the last, which have equal parts of it."""
    every: int = Field(default=2, ge=1, le=1000)
    """Block i is routed when i % every == every - 1."""
    router: Literal["learned", "frozen"] = "learned"
    """Whether it learns, or stays as it started."""
    gate: Literal["linear", "one"] = "linear"
    """What multiplies an update: the router's logit, which teaches it, or one."""
    start_capacity: float | None = Field(default=None, gt=0, le=1)
    """Share at the start of training; None for the capacity throughout."""
    reached: float = Field(default=0.5, gt=0, le=1)
    """Share of training after which the capacity is what it stays, on a line from the start's."""

    @model_validator(mode="after")
    def _shares(self) -> Config:
        listed = self.capacity if isinstance(self.capacity, tuple) else (self.capacity,)
        if not listed or not all(0 < one <= 1 for one in listed):
            raise ValueError(f"capacity is {self.capacity}; expected shares above 0, up to 1")
        if self.gate == "one" and self.router == "learned":
            raise ValueError(
                'gate is "one", which teaches a router nothing; expected router = "frozen" with it'
            )
        return self

    def routes(self, block: int) -> bool:
        """Return whether a block is routed."""
        return block % self.every == self.every - 1

    def share(self, model: ModelConfig, block: int, progress: float) -> float:
        """Return the share that a routed block processes at some progress of training."""
        found = self.capacity
        if isinstance(found, tuple):
            routed = model.blocks // self.every
            found = found[min(len(found) - 1, block // self.every * len(found) // routed)]
        if self.start_capacity is None or progress >= self.reached:
            return found
        return self.start_capacity + (found - self.start_capacity) * progress / self.reached


def period(config: Config) -> int:
    """Return what the number of blocks is a multiple of."""
    return config.every


def processed(config: Config, model: ModelConfig, block: int, tokens: int, progress: float) -> int:
    """Return how many of a sequence's tokens a block processes under `top_k`."""
    if not config.routes(block):
        return tokens
    return max(1, math.floor(config.share(model, block, progress) * tokens))


def costs(config: Config, model: ModelConfig, block: int, tokens: int, convention: str) -> Costs:
    """Return what the router costs."""
    if not config.routes(block):
        return Costs(parameters=0, flops=0)
    return Costs(parameters=model.width, flops=2 * tokens * model.width)


def build(config: Config, model: ModelConfig, block: int) -> nn.Module | None:
    """Return what routes around a block; None where it processes all."""
    if not config.routes(block):
        return None
    import torch

    from isoflop.ops import add_at, gather_tokens, mask_positions, top_k_positions

    class Routing(torch.nn.Module):
        """A router around a block."""

        decision: str
        threshold: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.router = torch.nn.Linear(model.width, 1, bias=False)
            self.router.weight.requires_grad_(config.router == "learned")
            self.roles = {"router.weight": "router"}
            self.register_buffer("threshold", torch.zeros(()))
            self.share = 1.0

        def progress(self, share: float) -> None:
            """Take up the share of training that is over."""
            self.share = share

        def forward(
            self, x: Tensor, cosines: Tensor, sines: Tensor, inner: Inner
        ) -> tuple[Tensor, Told]:
            """Return the stream (B, T, D) with the updates of the chosen tokens added."""
            with torch.autocast(x.device.type, enabled=False):
                logits = (x.float() * self.router.weight.float()).sum(-1)
            told, real = {}, None
            if self.decision == "top_k":
                count = processed(config, model, block, x.shape[1], self.share)
                positions = top_k_positions(logits.detach(), count)
                told["smallest"] = logits.detach().gather(1, positions).amin(-1).mean()
            else:
                positions, real = mask_positions(logits >= self.threshold)
            update = inner(gather_tokens(x, positions), cosines[positions], sines[positions])
            chosen = logits.gather(1, positions)
            weight = torch.ones_like(chosen) if config.gate == "one" else chosen
            if real is not None:
                weight = weight * real
            return add_at(x, positions, weight.unsqueeze(-1) * update), told

        def after_step(self, told: Told) -> None:
            """Follow the smallest logit that was taken."""
            follow(self.threshold, told["smallest"])

    if config.start_capacity is not None:
        # Compiled, it would be compiled anew at each step that processes fewer tokens.
        Routing.forward = torch.compiler.disable(Routing.forward)  # type: ignore
    return Routing()
