"""One optimiser step: loss, gradient, clipping, update. Nothing in it waits for the device.

Axes: B batch, T time, D width, R routed blocks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoflop.config import BlockAttention, RandomK, Recompute, RunConfig, TopK
from isoflop.evaluation import token_losses
from isoflop.model import Routing, Transformer, membership_loss, statistics_of
from isoflop.ops import LOGITS_AT_A_TIME, chunked_cross_entropy, losses_and_slope
from isoflop.training.optimisation.optimiser import Optimiser
from isoflop.training.optimisation.parametrisation import predictor_parameters
from isoflop.training.optimisation.sharding import clip_split, is_sharded, local, shard, sums_up
from isoflop.training.ranks import ALONE, Ranks
from isoflop.training.state import tensors_under

THRESHOLD_DECAY = 0.99
"""Weight of the past in the running threshold, per step."""


def on_device(values: Tensor, device: torch.device) -> Tensor:
    """Return values of the CPU on a device, without waiting for it."""
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


class StepResult:
    """What a step measured, copied from the device while it goes on; reading a value waits for it.

    Args:
        measured: on the device, one vector.
        counts: how many values of it are whose, in order. Statistics of routed blocks are under
            `routing.NAME`, and what variants of one's own told under `told.NAME`.
    """

    def __init__(self, measured: Tensor, counts: Mapping[str, int]) -> None:
        self._counts = counts
        self._copied: torch.cuda.Event | None = None
        self._measured = measured
        if measured.device.type == "cuda":
            self._measured = torch.empty_like(measured, device="cpu", pin_memory=True)
            self._measured.copy_(measured, non_blocking=True)
            self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied.record()

    @cached_property
    def _values(self) -> dict[str, list[float]]:
        if self._copied is not None:
            self._copied.synchronize()
        values = iter(self._measured.tolist())
        return {name: list(islice(values, count)) for name, count in self._counts.items()}

    def _under(self, prefix: str) -> dict[str, list[float]]:
        found = self._values.items()
        return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}

    @property
    def loss(self) -> float:
        """Language-model loss of the batch before the update, nats per token."""
        return self._values["loss"][0]

    @property
    def gradient_norm(self) -> float:
        """Global norm before clipping, decision heads left out."""
        return self._values["gradient_norm"][0]

    @property
    def predictor_norm(self) -> float:
        """Global norm of the decision heads' gradient before clipping."""
        return self._values["predictor_norm"][0]

    @property
    def span_losses(self) -> tuple[float, ...]:
        """The same as `loss` of each of the run's spans of positions."""
        return tuple(self._values["spans"])

    @property
    def routing(self) -> dict[str, list[float]]:
        """Statistics by routed block; empty for the plain transformer."""
        return self._under("routing.")

    @property
    def told(self) -> dict[str, float | list[float]]:
        """What variants of one's own told, by name: a number or several."""
        found = self._under("told.").items()
        return {name: values[0] if len(values) == 1 else values for name, values in found}

    @property
    def finite(self) -> bool:
        """Whether loss and gradients were finite; if not, nothing was updated, nor is later."""
        return all(map(math.isfinite, (self.loss, self.gradient_norm, self.predictor_norm)))


class Measured(NamedTuple):
    """What a forward and backward pass measured, on the device."""

    values: Tensor
    """The loss, the loss of each span, and R values of each statistic of routed blocks."""
    smallest: Tensor
    """Mean over the batch of the smallest score that was selected, (R,); empty where none is."""
    statistics: tuple[str, ...]
    """Names of the statistics."""
    told: dict[str, Tensor]
    """What variants of one's own told, as `BLOCK.PART.NAME`."""


class Trainer:
    """A model, its optimiser and the step that joins them.

    Args:
        model: initialised, on its device.
        config: the run.
        compiled: compile each kind of block with torch.compile.
        micro_batch: sequences held at a time, whose gradients are summed up; None for all.
        recompute: what blocks compute again in their backward pass.
        logits: most logits that exist at a time.
        ranks: that share the sequences of each step; each has a trainer of its own.
    """

    def __init__(
        self,
        model: Transformer,
        config: RunConfig,
        *,
        compiled: bool,
        micro_batch: int | None = None,
        recompute: Recompute = "none",
        logits: int = LOGITS_AT_A_TIME,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.config = config
        self.ranks = ranks
        self.sharded = ranks.sharded
        model.recompute(recompute)
        if compiled:
            # By default a ninth model of a process would fail.
            torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
            # Blocks of a kind share their code, so compiling costs once per width, not per depth.
            for block in model.blocks:
                # What of one's own cannot be compiled stays eager.
                block.compile(dynamic=False, fullgraph=not config.model.own)
        if ranks.sharded:
            if config.sequences_per_step % ranks.world:
                raise ValueError(
                    f"{ranks.world} ranks hold a part of the blocks each, and a step has "
                    f"{config.sequences_per_step} sequences; expected as many for each: a multiple "
                    f"of {ranks.world}, or --shard no"
                )
            device = next(model.parameters()).device.type
            shard(model, list(model.blocks), device, ranks.world)
        self.optimiser = Optimiser(model, config.recipe)
        self.device = next(model.parameters()).device
        self._micro_batch = micro_batch or config.sequences_per_step
        self._logits = logits
        self._predictors = predictor_parameters(model)
        apart = {id(parameter) for parameter in self._predictors}
        self._language = [p for p in model.parameters() if id(p) not in apart]
        # Set by the first step that is not finite, and never back: what follows updates nothing.
        self._halted = torch.zeros((), device=self.device)
        self._own = model.own
        half_life = config.recipe.average_half_life
        self.average = None
        """Of the weights over the last steps, by parameter, where the recipe asks for it."""
        if half_life is not None:
            self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
            self._newest = 1 - 0.5 ** (1 / (half_life * config.steps))
        # A mean needs no loss of each token, (B, T), which spans of positions are taken from.
        self._readout_loss = _readout_losses if config.spans else _readout_loss
        self._slopes = losses_and_slope
        if compiled:
            self._readout_loss = torch.compile(self._readout_loss, dynamic=False)
            self._slopes = torch.compile(self._slopes)

    def step(self, tokens: Tensor, index: int, rate_factor: float) -> StepResult:
        """Train on one batch.

        Args:
            tokens: (B, T + 1) int64, the same on all ranks; inputs are all but the last, targets
                all but the first.
            index: number of the step, from 0; keys the random control's noise.
            rate_factor: share of the peak learning rate.
        """
        found = self.gradients(tokens, index)
        norms = torch.stack([self._clip(self._language), self._clip(self._predictors)])
        told = [one.flatten().float() for one in found.told.values()]
        measured = torch.cat([found.values[:1], norms, found.values[1:], *told])
        self._halted = torch.maximum(self._halted, 1 - measured[:3].isfinite().all().float())
        self.optimiser.step(rate_factor, self._halted)
        self._track_thresholds(found.smallest, index)
        self._after_step(found.told)
        if self.average is not None:
            weights = [local(p.detach()) for p in self.model.parameters()]
            averages = [local(one) for one in self.average.values()]
            torch._foreach_lerp_(averages, weights, max(self._newest, 1 / (index + 1)))
        spans = len(self.config.spans)
        counts = {"loss": 1, "gradient_norm": 1, "predictor_norm": 1, "spans": spans}
        blocks = (len(found.values) - 1 - spans) // max(1, len(found.statistics))
        counts |= {f"routing.{name}": blocks for name in found.statistics}
        counts |= {f"told.{name}": one.numel() for name, one in found.told.items()}
        return StepResult(measured, counts)

    def tell_progress(self, steps: int) -> None:
        """Tell parts of one's own how much of training is over, after so many steps."""
        for _, part in self._own:
            if hasattr(part.own, "progress"):
                part.own.progress(steps / self.config.steps)  # type: ignore[operator]

    def gradients(self, tokens: Tensor, index: int) -> Measured:
        """Add the gradient of a batch's mean loss to the parameters, some sequences at a time.

        Ranks add up theirs once, after their last sequences.

        Args:
            tokens: (B, T + 1) int64.
            index: number of the step.
        """
        self.model.train()
        self._turn_attention(index)
        self.tell_progress(index)
        noise = self._noise(tokens, index)
        mine = self.ranks.rows(len(tokens))
        parts = torch.split(tokens[mine], self._micro_batch)
        draws: Sequence[Tensor | None] = [None] * len(parts)
        if noise is not None:
            draws = torch.split(noise[:, mine], self._micro_batch, 1)
        # The outer context keeps weights as cast for all parts.
        with self.autocast():
            told = [
                self._part(part, drawn, len(part) / len(tokens), last=part is parts[-1])
                for part, drawn in zip(parts, draws, strict=True)
            ]
        values = torch.stack([one.values for one in told]).sum(0)
        smallest = torch.stack([one.smallest for one in told]).sum(0)
        means = {
            name: torch.stack([one.told[name] for one in told]).sum(0) for name in told[0].told
        }
        self.ranks.add_up([*self._whole_gradients(), values, smallest, *means.values()])
        return Measured(values, smallest, told[0].statistics, means)

    def _whole_gradients(self) -> list[Tensor]:
        """Return the gradient of each parameter, zeros where this rank's sequences gave none."""
        if self.ranks.world == 1:
            return []
        found = []
        for p in self.model.parameters():
            if p.requires_grad and not is_sharded(p):
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
                found.append(p.grad)
        return found

    def _part(self, tokens: Tensor, noise: Tensor | None, share: float, last: bool) -> Measured:
        """Go forward and backward with a part of a batch; what it measures is times its share."""
        if self.sharded:
            sums_up(self.model, last)
        with self.autocast():
            stream, routing, told = self.model.stream(tokens[:, :-1], noise=noise)
            loss, losses = self._loss(stream, tokens[:, 1:])
        total, of_own = loss + self._auxiliary(routing), dict[str, Tensor]()
        for block, parts in told.items():
            for part, found in parts.items():
                of_own |= {f"{block}.{part}.{name}": value for name, value in found.items()}
                total = total + found["loss"] if "loss" in found else total
        if share != 1:
            total = total * share
        with torch.autocast(self.device.type, enabled=False):
            # The type stub of backward is untyped in torch.
            total.backward()  # type: ignore[no-untyped-call]
        spans = [losses[:, start:stop].mean() for start, stop in self.config.spans]
        statistics = statistics_of(routing)
        values = torch.cat([torch.stack([loss.detach(), *spans]), *statistics.values()])
        lows = [one.smallest_selected for one in routing if one.smallest_selected is not None]
        smallest = torch.stack(lows) if lows else values.new_zeros(0)
        shares = {name: value.detach() * share for name, value in of_own.items()}
        return Measured(values * share, smallest * share, tuple(statistics), shares)

    def _loss(self, stream: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean loss and, where spans are told apart, those of tokens (B, T)."""
        if targets.numel() * self.config.model.vocabulary <= self._logits:
            losses = self._readout_loss(self.model, stream, targets)
            return losses.mean(), losses.detach()
        loss, losses = chunked_cross_entropy(
            self.model.norm(stream).flatten(0, 1),
            self.model.head.weight,
            targets.flatten(),
            logits=self._logits,
            slopes=self._slopes,
        )
        return loss, losses.view_as(targets)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the average of the weights in their place for a while."""
        last = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._put(self.average or last)
        try:
            yield
        finally:
            self._put(last)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, p in self.model.named_parameters():
            p.copy_(weights[name])

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context that computes in the run's precision."""
        enabled = self.config.recipe.precision == "bf16"
        # Weights as cast would keep all blocks together, of which there is to be one at a time.
        kept = not self.sharded
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=kept)

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
        return on_device(torch.randn(shape, generator=generator), self.device)

    def _auxiliary(self, routing: tuple[Routing, ...]) -> Tensor:
        total = torch.zeros((), device=self.device)
        if isinstance(self.config.model.depth, TopK):
            for routed in routing:
                total = total + membership_loss(routed.predictor_logits, routed)
                if weight := self.config.model.depth.router_bce:
                    total = total + weight * membership_loss(routed.logits, routed)
        return total

    @torch.no_grad()
    def _track_thresholds(self, smallest: Tensor, index: int) -> None:
        weight = 1.0 if index == 0 else 1 - THRESHOLD_DECAY
        for block, found in zip(self.model.routed, smallest, strict=True):
            after = block.threshold.lerp(found, weight)
            block.threshold.copy_(torch.where(self._halted > 0, block.threshold, after))

    @torch.no_grad()
    def _after_step(self, told: Mapping[str, Tensor]) -> None:
        """Let modules of one's own change their buffers, unless the step is to change nothing."""
        for index, part in self._own:
            if not hasattr(part.own, "after_step"):
                continue
            prefix, before = f"{index}.{part.part}.", [one.clone() for one in part.buffers()]
            part.own.after_step(tensors_under(told, prefix))  # type: ignore[operator]
            for buffer, was in zip(part.buffers(), before, strict=True):
                buffer.copy_(torch.where(self._halted > 0, was, buffer))

    def _clip(self, parameters: list[nn.Parameter]) -> Tensor:
        """Clip the gradient of some parameters and return its norm before that."""
        if not parameters:
            return torch.zeros((), device=self.device)
        limit = self.config.recipe.gradient_clip
        if not self.sharded:
            return torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        return clip_split(parameters, limit, self.ranks.add_up)


def _readout_loss(model: Transformer, stream: Tensor, targets: Tensor) -> Tensor:
    logits = model.readout(stream)
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _readout_losses(model: Transformer, stream: Tensor, targets: Tensor) -> Tensor:
    return token_losses(model.readout(stream), targets)
