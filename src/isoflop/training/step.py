"""One optimiser step: loss, gradient, clipping, update.

Axes: B batch, T time, D width.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.config import BlockAttention, RandomK, RunConfig, TopK
from isoflop.evaluation import token_losses
from isoflop.model import Routing, Transformer, predictor_loss, router_loss
from isoflop.training.parametrisation import optimiser, predictor_parameters

THRESHOLD_DECAY = 0.99
"""Weight of the past in the running threshold, per step."""


@dataclass(frozen=True)
class StepResult:
    """What a step measured."""

    loss: float
    """Language-model loss of the batch before the update, nats per token."""
    gradient_norm: float
    """Global norm before clipping, decision heads left out."""
    predictor_norm: float
    """Global norm of the decision heads' gradient before clipping."""
    routing: dict[str, list[float]]
    """Statistics by routed block; empty for the plain transformer."""
    span_losses: tuple[float, ...] = ()
    """The same as `loss` of each of the run's spans of positions."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradients were finite; if not, nothing was updated."""
        return all(map(math.isfinite, (self.loss, self.gradient_norm, self.predictor_norm)))


class Trainer:
    """A model, its optimiser and the step that joins them.

    Args:
        model: initialised, on its device.
        config: the run.
        compiled: compile each kind of block with torch.compile.
    """

    def __init__(self, model: Transformer, config: RunConfig, *, compiled: bool) -> None:
        self.model = model
        self.config = config
        self.optimiser = optimiser(model, config.recipe)
        self.device = next(model.parameters()).device
        self._predictors = predictor_parameters(model)
        apart = {id(parameter) for parameter in self._predictors}
        self._language = [p for p in model.parameters() if id(p) not in apart]
        # A mean needs no loss of each token, (B, T), which spans of positions are taken from.
        self._readout_loss = _readout_losses if config.spans else _readout_loss
        if compiled:
            # Blocks of a kind share their code, so compiling costs once per width, not per depth.
            for block in model.blocks:
                block.compile(dynamic=False)
            self._readout_loss = torch.compile(self._readout_loss, dynamic=False)

    def step(self, tokens: Tensor, index: int, rate_factor: float) -> StepResult:
        """Train on one batch.

        Args:
            tokens: (B, T + 1) int64; inputs are all but the last, targets all but the first.
            index: number of the step, from 0; keys the random control's noise.
            rate_factor: share of the peak learning rate.
        """
        self.model.train()
        self._turn_attention(index)
        with self.autocast():
            stream, routing = self.model.stream(tokens[:, :-1], noise=self._noise(tokens, index))
            losses = self._readout_loss(self.model, stream, tokens[:, 1:])
        loss = losses.mean()
        total = loss + self._auxiliary(routing)
        # The type stub of backward is untyped in torch.
        total.backward()  # type: ignore[no-untyped-call]
        norm = _clip(self._language, self.config.recipe.gradient_clip)
        predictor_norm = _clip(self._predictors, self.config.recipe.gradient_clip)
        result = StepResult(
            float(loss.detach()),
            float(norm),
            float(predictor_norm),
            _statistics(routing),
            tuple(float(losses.detach()[:, a:b].mean()) for a, b in self.config.spans),
        )
        if result.finite:
            for group in self.optimiser.param_groups:
                group["lr"] = group["peak"] * rate_factor
            self.optimiser.step()
            self._track_thresholds(routing, index)
        self.optimiser.zero_grad(set_to_none=True)
        return result

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that computes in the run's precision."""
        enabled = self.config.recipe.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def _turn_attention(self, index: int) -> None:
        attention = self.config.model.attention
        if isinstance(attention, BlockAttention) and attention.ends_full:
            self.model.attend_fully(index >= attention.full_from * self.config.steps)

    def _noise(self, tokens: Tensor, index: int) -> Tensor | None:
        if not isinstance(self.config.model.depth, RandomK):
            return None
        # torch's CPU generator takes 32 bits; the golden ratio keeps the steps of two seeds apart.
        key = (self.config.seed * 0x9E3779B1 + index) % (1 << 32)
        generator = torch.Generator().manual_seed(key)
        shape = (len(self.model.routed), tokens.shape[0], tokens.shape[1] - 1)
        return torch.randn(shape, generator=generator).to(self.device)

    def _auxiliary(self, routing: tuple[Routing, ...]) -> Tensor:
        total = torch.zeros((), device=self.device)
        if isinstance(self.config.model.depth, TopK):
            for routed in routing:
                total = total + predictor_loss(routed)
                if self.config.model.depth.router_bce:
                    total = total + self.config.model.depth.router_bce * router_loss(routed)
        return total

    @torch.no_grad()
    def _track_thresholds(self, routing: tuple[Routing, ...], index: int) -> None:
        for block, routed in zip(self.model.routed, routing, strict=True):
            assert routed.smallest_selected is not None
            weight = 1.0 if index == 0 else 1 - THRESHOLD_DECAY
            block.threshold.lerp_(routed.smallest_selected, weight)


def _readout_loss(model: Transformer, stream: Tensor, targets: Tensor) -> Tensor:
    logits = model.readout(stream)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _readout_losses(model: Transformer, stream: Tensor, targets: Tensor) -> Tensor:
    return token_losses(model.readout(stream), targets)


def _clip(parameters: list[nn.Parameter], limit: float) -> Tensor:
    if not parameters:
        return torch.zeros(())
    return torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)


@torch.no_grad()
def _statistics(routing: tuple[Routing, ...]) -> dict[str, list[float]]:
    """Return per routed block: mean logit of the selected and of the others, predictor's accuracy
    against membership, and the share that it would select."""
    if not routing:
        return {}
    logits = torch.stack([r.logits for r in routing]).flatten(1)
    chosen = torch.stack([r.selected for r in routing]).flatten(1)
    share = chosen.float().mean(1)
    inside = (logits * chosen).mean(1) / share
    outside = (logits * ~chosen).mean(1) / (1 - share).clamp_min(1e-9)
    statistics = {"selected_logit": inside.tolist(), "skipped_logit": outside.tolist()}
    predicted = [r.predictor_logits for r in routing if r.predictor_logits is not None]
    if predicted:
        would = torch.stack(predicted).flatten(1) > 0
        statistics["predictor_accuracy"] = (would == chosen).float().mean(1).tolist()
        statistics["predictor_share"] = would.float().mean(1).tolist()
    return statistics
