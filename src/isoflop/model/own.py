"""Variants of one's own in a model: modules that `isoflop.variants` made, and depth around them.

Axes: B batch, T time, D width, K head width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from isoflop.config import Decision, ModelConfig, Own, Part, Recompute
from isoflop.model.recompute import recomputed
from isoflop.variants import Told, made

if TYPE_CHECKING:
    from isoflop.model.layers import Block, Memory

Tolds = dict[Part, Told]
"""What the parts of a block told beside their results."""


class OwnPart(nn.Module):
    """A module of one's own, asked in one way, whatever it is a part of.

    Args:
        named: the variant.
        part: what it takes the place of.
        config: the model.
        block: index of the block that it belongs to.
    """

    def __init__(self, named: Own, part: Part, config: ModelConfig, block: int) -> None:
        super().__init__()
        found = made(named, part, config, block)
        if not isinstance(found, nn.Module):
            raise ValueError(
                f"{part} {named.kind!r}: build gives {type(found).__name__} for block {block}; "
                "expected a torch.nn.Module"
            )
        self.kind, self.part, self.own = named.kind, part, found
        self._decisions = named.decisions
        self.recompute: Recompute = "none"
        """Of a whole block; any other part is recomputed with the block that it is in."""

    def forward(self, *inputs: Any, memory: Memory | None = None) -> tuple[Tensor, Tolds]:
        """Return the module's result and what it told; `inputs` are its own.

        `memory`, of attention and whole blocks, is of earlier tokens; None where there are none.
        """
        if memory is not None:
            return memory.through(self.own, *inputs), {}
        if not torch.is_grad_enabled():
            return self._told(*inputs)
        return recomputed(self.recompute, self._told, *inputs)

    def _told(self, *inputs: Any) -> tuple[Tensor, Tolds]:
        found = self.own(*inputs)
        result, told = found if isinstance(found, tuple) and len(found) == 2 else (found, {})
        values = told.values() if isinstance(told, dict) else (None,)
        fits = all(isinstance(one, Tensor) for one in (result, *values))
        if fits and result.shape == inputs[0].shape:
            return result, {self.part: told} if told else {}
        given = tuple(result.shape) if fits else f"{type(result).__name__}, {type(told).__name__}"
        raise ValueError(
            f"{self.part} {self.kind!r}: `forward` gives {given}; expected a tensor of shape "
            f"{tuple(inputs[0].shape)}, or it and a dict of tensors that are told"
        )

    @property
    def decodes(self) -> bool:
        """Whether text can be generated over a cache."""
        return self.part == "feed_forward" or hasattr(self.own, "decode")

    def set_decision(self, decision: Decision) -> None:
        """Tell the module who decides in the passes to come, of those that its file knows."""
        known = self._decisions
        self.own.decision = decision if decision in known else known[0]  # type: ignore[assignment]


class OwnBlock(nn.Module):
    """A block with parts of one's own, which tell more than an update; depth may wrap it."""

    def __init__(self, block: Block | OwnPart, depth: OwnPart | None) -> None:
        super().__init__()
        self.block, self.depth = block, depth

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor) -> tuple[Tensor, Tolds]:
        """Return the stream after the block, (B, T, D), and what its parts told.

        Arguments are those of `variants.Depth`, but for `inner`.
        """
        if self.depth is None:
            update, told = self.block(x, cosines, sines)
            return x + update, told
        inside: Tolds = {}

        def inner(tokens: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
            update: Tensor
            update, told = self.block(tokens, cosines, sines)
            inside.update(told)
            return update

        stream, told = self.depth(x, cosines, sines, inner)
        return stream, {**inside, **told}


def depth_of(config: ModelConfig, block: int) -> OwnPart | None:
    """Return a depth of one's own around a block; None where the block processes all tokens."""
    if not isinstance(config.depth, Own) or made(config.depth, "depth", config, block) is None:
        return None
    return OwnPart(config.depth, "depth", config, block)
