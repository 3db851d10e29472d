"""Mixture-of-Depths routing around a block (arXiv 2404.02258, section 3).

Axes: B batch, T time, C selected tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.config import Cap, Decision, Gate, ModelConfig, Routed, TopK
from isoflop.model.layers import Memory, block_of
from isoflop.model.own import Tolds
from isoflop.ops import (
    add_at,
    cap_selection,
    gather_tokens,
    mask_positions,
    membership,
    top_k_positions,
)


@dataclass(frozen=True)
class Routing:
    """What one routed block decided for a batch."""

    logits: Tensor
    """Router logits r = w.x, (B, T) float32."""
    selected: Tensor
    """True where the block processed the token, (B, T) bool."""
    predictor_logits: Tensor | None
    """The predictor's logits for being selected, (B, T); None for the random control."""
    smallest_selected: Tensor | None
    """Mean over the batch of the k-th largest score under top-k, a scalar; None otherwise."""
    told: Tolds
    """What parts of one's own told within the block."""


class RoutedBlock(nn.Module):
    """A block that processes only the tokens its router selects and gates their update.

    x_i' = x_i + g(r_i) f_i(selected tokens) if token i is selected, else x_i. Selected tokens
    keep their order and their positions; the others are neither queries nor keys.
    """

    threshold: Tensor

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        assert isinstance(config.depth, Routed)
        self.depth = config.depth
        self.block = block_of(config, index)
        self.router = nn.Linear(config.width, 1, bias=False)
        self.predictor: nn.Sequential | None = None
        if isinstance(config.depth, TopK):
            inner = max(1, config.width // 2)
            self.predictor = nn.Sequential(
                nn.Linear(config.width, inner, bias=False),
                nn.SiLU(),
                nn.Linear(inner, 1, bias=False),
            )
        self.register_buffer("threshold", torch.zeros(()))

    def forward(
        self,
        x: Tensor,
        cosines: Tensor,
        sines: Tensor,
        decision: Decision,
        noise: Tensor | None,
        cap: Cap | None = None,
    ) -> tuple[Tensor, Routing]:
        """Return the stream after this block, (B, T, D), and what was decided.

        Args:
            x: residual stream, (B, T, D).
            cosines: rotary table of all positions, (T, K/2).
            sines: like `cosines`.
            decision: who selects.
            noise: for the random control, Gaussian scores (B, T) under `top_k`, uniform draws
                (B, T) or (T,) under `bernoulli`.
            cap: on what a causal decision selects; None for none.
        """
        length = x.shape[1]
        logits = self.router_logits(x)
        predicted = self.predictor_logits(x)
        smallest = None
        if decision == "top_k":
            scores = logits.detach() if noise is None else noise
            positions = top_k_positions(scores, self.depth.selected_tokens(length))
            smallest = scores.gather(1, positions).amin(-1).mean()
            real, selected = None, membership(positions, length)
        else:
            selected = self.wants(decision, logits.shape, logits, predicted, noise)
            if cap is not None:
                selected, _ = cap_selection(selected, cap.window, cap.most(self.depth))
            positions, real = mask_positions(selected)
        x, told = self.processed(x, logits, cosines, sines, positions, real)
        return x, Routing(logits, selected, predicted, smallest, told)

    def router_logits(self, x: Tensor) -> Tensor:
        """Return the router logits r = w.x of a stream (B, T, D), (B, T) float32."""
        with torch.autocast(x.device.type, enabled=False):
            return (x.float() * self.router.weight.float()).sum(-1)

    def predictor_logits(self, x: Tensor) -> Tensor | None:
        """Return the predictor's logits for being selected, (B, T) float32, if it has one."""
        if self.predictor is None:
            return None
        predicted: Tensor = self.predictor(x.detach()).squeeze(-1).float()
        return predicted

    def processed(
        self,
        x: Tensor,
        logits: Tensor,
        cosines: Tensor,
        sines: Tensor,
        positions: Tensor,
        real: Tensor | None,
        memory: Memory | None = None,
    ) -> tuple[Tensor, Tolds]:
        """Return the stream (B, T, D) with the gated updates of the selected tokens added, and
        what parts of one's own told.

        Args:
            x: residual stream, (B, T, D).
            logits: router logits, (B, T).
            cosines: rotary table of all positions, (T, K/2).
            sines: like `cosines`.
            positions: of the selected tokens, (B, C), ascending.
            real: false where a position is padding behind the selected ones, (B, C) bool; None
                where none is.
            memory: takes up the keys and values of the selected tokens.
        """
        tokens = gather_tokens(x, positions)
        update, told = self.block(tokens, cosines[positions], sines[positions], memory=memory)
        weight = gate(self.depth.gate, logits.gather(1, positions))
        if real is not None:
            weight = weight * real
        return add_at(x, positions, weight.unsqueeze(-1) * update), told

    def wants(
        self,
        decision: Decision,
        shape: torch.Size,
        logits: Tensor | None,
        predicted: Tensor | None,
        noise: Tensor | None,
    ) -> Tensor:
        """Return which tokens are selected when each position decides from its own past.

        Args:
            decision: a causal one.
            shape: (B, T) of the tokens.
            logits: router logits, (B, T); `threshold` and `router` need them.
            predicted: logits of the predictor, (B, T); `predictor` needs them.
            noise: uniform draws, (B, T) or (T,); `bernoulli` needs them.

        Returns:
            (B, T) bool.
        """
        match decision:
            case "predictor":
                assert predicted is not None
                return predicted > 0
            case "threshold":
                assert logits is not None
                return logits >= self.threshold
            case "router":
                assert logits is not None
                return logits > 0
            case "bernoulli":
                assert noise is not None
                return (noise < self.depth.capacity).expand(shape)
            case "every_token":
                return torch.ones(shape, dtype=torch.bool, device=self.threshold.device)
            case "top_k":
                raise AssertionError("top_k is not causal")
            case _:
                assert_never(decision)


def gate(kind: Gate, logits: Tensor) -> Tensor:
    """Return what multiplies a selected token's update, of the shape of `logits`."""
    match kind:
        case "linear":
            return logits
        case "sigmoid":
            return logits.sigmoid()
        case "tanh":
            return 1 + logits.tanh()
        case _:
            assert_never(kind)


def control_draws(length: int, routed: int, seed: int) -> Tensor:
    """Return the uniform draws by which the random control decides causally, (R, T).

    They are keyed by seed, block and position: those of a longer sequence begin alike.

    Args:
        length: T.
        routed: R, routed blocks.
        seed: keys the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(length, routed, generator=generator).T


def membership_loss(logits: Tensor | None, routing: Routing) -> Tensor:
    """Return the binary cross-entropy of logits (B, T) against membership, a scalar.

    Args:
        logits: of the predictor or the router.
        routing: that they are of.
    """
    assert logits is not None
    return F.binary_cross_entropy_with_logits(logits, routing.selected.float())


@torch.no_grad()
def statistics_of(routing: tuple[Routing, ...]) -> dict[str, Tensor]:
    """Return (R,) values: mean logit of the selected and of the others, predictor's accuracy
    against membership, and the share that it would select."""
    if not routing:
        return {}
    logits = torch.stack([r.logits for r in routing]).flatten(1)
    chosen = torch.stack([r.selected for r in routing]).flatten(1)
    share = chosen.float().mean(1)
    inside = (logits * chosen).mean(1) / share
    outside = (logits * ~chosen).mean(1) / (1 - share).clamp_min(1e-9)
    statistics = {"selected_logit": inside, "skipped_logit": outside}
    predicted = [r.predictor_logits for r in routing if r.predictor_logits is not None]
    if predicted:
        would = torch.stack(predicted).flatten(1) > 0
        statistics["predictor_accuracy"] = (would == chosen).float().mean(1)
        statistics["predictor_share"] = would.float().mean(1)
    return statistics
