"""The decoder: embeddings, blocks (routed or not), logits.

Axes: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from isoflop.config import (
    AttentionKernel,
    Cap,
    Decision,
    ModelConfig,
    RandomK,
    Recompute,
)
from isoflop.model.layers import Block, RmsNorm, SelfAttention, block_of
from isoflop.model.own import OwnBlock, OwnPart, Tolds, depth_of
from isoflop.model.routing import RoutedBlock, Routing
from isoflop.ops import rotary_tables


@dataclass(frozen=True)
class Output:
    """What a forward pass gives."""

    logits: Tensor
    """Next-token logits, (B, T, V)."""
    routing: tuple[Routing, ...]
    """Decisions of the blocks `config.routed_blocks`, in order; empty for the plain transformer."""


class Stream(NamedTuple):
    """What the blocks give."""

    x: Tensor
    """Residual stream after the last block, (B, T, D)."""
    routing: tuple[Routing, ...]
    """As in `Output`."""
    told: dict[int, Tolds]
    """What variants of one's own told, by block."""


class Transformer(nn.Module):
    """A Llama-family decoder in which some blocks may be routed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        routed = set(config.routed_blocks)
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.blocks = nn.ModuleList(
            RoutedBlock(config, i) if i in routed else _unrouted(config, i)
            for i in range(config.blocks)
        )
        self.norm = RmsNorm(config.width, config.norm_epsilon)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied_embeddings:
            self.head.weight = self.embedding.weight
        self._rotary: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def attentions(self) -> list[SelfAttention]:
        """The attention of every block, in order."""
        return [module for module in self.modules() if isinstance(module, SelfAttention)]

    @property
    def inner(self) -> list[Block | OwnPart]:
        """What gives the update of every block, in order, whatever is around it."""
        found = [block if isinstance(block, Block) else block.block for block in self.blocks]
        return cast("list[Block | OwnPart]", found)

    @property
    def mixers(self) -> list[SelfAttention | OwnPart]:
        """What of every block remembers earlier tokens, in order: its attention, or all of it."""
        return [one.attention if isinstance(one, Block) else one for one in self.inner]

    @property
    def own(self) -> list[tuple[int, OwnPart]]:
        """Each module of one's own, with the index of its block."""
        return [
            (index, module)
            for index, block in enumerate(self.blocks)
            for module in block.modules()
            if isinstance(module, OwnPart)
        ]

    @property
    def routed(self) -> list[RoutedBlock]:
        """The routed blocks, in order."""
        return [block for block in self.blocks if isinstance(block, RoutedBlock)]

    def attend_fully(self, full: bool) -> None:
        """Make blocks that may attend by key blocks attend all keys, or stop doing so.

        Attention by blocks has no parameters of its own, so that a model may turn at any time. A
        new one attends as the finished model does (`BlockAttention.full_from`).
        """
        for attention in self.attentions:
            attention.full = full or attention.by_block is None

    def recompute(self, kind: Recompute) -> None:
        """Set what blocks compute again in their backward pass instead of keeping it."""
        for block in self.inner:
            block.recompute = kind

    def attend_with(self, kernel: AttentionKernel | None) -> None:
        """Set what attends all keys in training; None for the rule of `causal_attention`."""
        for attention in self.attentions:
            attention.kernel = kernel

    def forward(
        self,
        tokens: Tensor,
        *,
        decision: Decision | None = None,
        noise: Tensor | None = None,
        cap: Cap | None = None,
    ) -> Output:
        """Return logits and routing decisions.

        Args:
            tokens: int64 ids, (B, T).
            decision: who selects the tokens of routed blocks; None for `top_k` in training mode
                and for the causal headline decision otherwise.
            noise: what the random control decides by, (R, B, T) for R routed blocks, or (R, T)
                under `bernoulli`; None draws it from torch's global generator.
            cap: on what a causal decision selects; None for none.

        Raises:
            ValueError: the decision or the cap does not fit the model.
        """
        found = self.stream(tokens, decision=decision, noise=noise, cap=cap)
        return Output(self.readout(found.x), found.routing)

    def stream(
        self,
        tokens: Tensor,
        *,
        decision: Decision | None = None,
        noise: Tensor | None = None,
        cap: Cap | None = None,
    ) -> Stream:
        """Return the residual stream after the last block, the decisions, and what was told.

        Arguments and errors are those of `forward`.
        """
        decision = self._decision(decision)
        if cap is not None and (decision == "top_k" or not self.routed):
            raise ValueError(
                f"a cap is given with decision {decision!r} and {len(self.routed)} routed blocks; "
                "expected a causal decision in a model that routes, or no cap"
            )
        for _, part in self.own if self.config.own else ():
            part.set_decision(decision)
        batch, length = tokens.shape
        if noise is None and isinstance(self.config.depth, RandomK):
            draw = torch.randn if decision == "top_k" else torch.rand
            noise = draw(len(self.routed), batch, length, device=tokens.device)
        cosines, sines = self.rotary(length, tokens.device)
        x: Tensor = self.embedding(tokens)
        routing: list[Routing] = []
        told: dict[int, Tolds] = {}
        for index, block in enumerate(self.blocks):
            if isinstance(block, RoutedBlock):
                scores = None if noise is None else noise[len(routing)]
                x, decided = block(x, cosines, sines, decision, scores, cap)
                routing.append(decided)
                told[index] = decided.told
            elif isinstance(block, OwnBlock):
                x, told[index] = block(x, cosines, sines)
            else:
                x = x + block(x, cosines, sines)[0]
        return Stream(x, tuple(routing), told)

    def readout(self, x: Tensor) -> Tensor:
        """Return the logits (B, T, V) of a residual stream (B, T, D)."""
        logits: Tensor = self.head(self.norm(x))
        return logits

    def rotary(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the rotary tables for `length` positions, each (T, K/2), of which one is kept."""
        kept = self._rotary.get(device)
        if kept is None or len(kept[0]) < length:
            # Tables made while generating must also serve training.
            with torch.inference_mode(False):
                base, scaling = self.config.rope_base, self.config.rope_scaling
                # Text grows by a token at a time.
                positions = 1 << (length - 1).bit_length()
                made = rotary_tables(positions, self.config.head_width, base, scaling)
                kept = self._rotary[device] = (made[0].to(device), made[1].to(device))
        return kept[0][:length], kept[1][:length]

    def _decision(self, decision: Decision | None) -> Decision:
        known = self.config.decisions
        if decision is None:
            return "top_k" if self.training and "top_k" in known else known[0]
        # every_token is also a limit that any routed model can be run in.
        if decision not in known and (self.config.own or decision != "every_token"):
            raise ValueError(
                f"decision is {decision!r}; expected one of {', '.join(known)} "
                f"for a model with depth {self.config.depth.kind!r}"
            )
        return decision


def _unrouted(config: ModelConfig, index: int) -> Block | OwnBlock:
    """Return a block that no router of isoflop's wraps."""
    block, depth = block_of(config, index), depth_of(config, index)
    if depth is None and isinstance(block, Block) and not config.own.keys() - {"depth"}:
        return block
    return OwnBlock(block, depth)


def build(config: ModelConfig, seed: int | None = None) -> Transformer:
    """Return a model of `config`, its matrices normal with variance 1/fan-in, all else ones.

    Args:
        config: what to build.
        seed: seeds the initialisation; None uses torch's global generator.
    """
    model = Transformer(config)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.fill_(1.0)
    return model
