"""How much of a step is held at a time: by what memory there is, estimated, then tried."""

from __future__ import annotations

import warnings
from typing import Literal

import torch

from isoflop import hardware
from isoflop.config import Environment, Recompute, RunConfig
from isoflop.memory import (
    USED,
    MemoryEstimate,
    MicroBatch,
    estimate_memory,
    fitting_step,
    sequences_held,
    smallest_step,
    spared_by_sharding,
)
from isoflop.model import build
from isoflop.training.memory import is_exhaustion
from isoflop.training.speed import random_tokens
from isoflop.training.step import Trainer

Shard = bool | Literal["auto"]
"""Whether ranks hold a part of the blocks each."""


def fitted(
    config: RunConfig,
    environment: Environment,
    *,
    micro_batch_tokens: MicroBatch = "auto",
    recompute: Recompute | Literal["auto"] = "auto",
    memory_bytes: int | None = None,
    shard: Shard = "auto",
) -> Environment:
    """Return an environment in which a step of a run fits into memory.

    What `auto` leaves open is estimated. On a GPU, and where the estimate comes near the memory
    there is, a forward and backward pass is tried, and fewer sequences are held until one works.

    Args:
        config: the run.
        environment: the present one.
        micro_batch_tokens: tokens held at a time, at least a sequence.
        recompute: what blocks compute again.
        memory_bytes: limit of the process's memory on a CPU; None for a fair share of what is free.
        shard: whether each of several ranks holds a part of the blocks; `auto` where the whole
            state of a rank does not fit.

    Raises:
        ValueError: `micro_batch_tokens` is less than a sequence.
    """
    held = None
    if isinstance(micro_batch_tokens, int):
        held = sequences_held(config, micro_batch_tokens)
    free = free_memory(environment)
    if memory_bytes is not None:
        free = USED[environment.device] * memory_bytes
    sharded = environment.ranks > 1 and shard is True
    if environment.ranks > 1 and shard == "auto":
        least = smallest_step(config, environment.device).total_bytes
        sharded = least > free
        if sharded:
            warnings.warn(
                f"blocks are split over the {environment.ranks} ranks: held whole, a step is "
                f"expected to need {least / 2**30:.3g} GiB, and {free / 2**30:.3g} GiB are free",
                stacklevel=2,
            )
    if sharded:
        free += spared_by_sharding(config, environment.ranks)
    if micro_batch_tokens == "auto":
        found = fitting_step(config, free, environment.device, recompute)
    else:
        every: tuple[Recompute, ...] = ("none", "selective", "full")
        steps = [
            estimate_memory(config, micro_batch=held, recompute=kind, device=environment.device)
            for kind in (every if recompute == "auto" else (recompute,))
        ]
        found = next((step for step in steps if step.total_bytes <= free), steps[-1])
    if found is None:
        found = smallest_step(config, environment.device)
        warnings.warn(
            f"a step is expected to need {found.total_bytes / 2**30:.3g} GiB with one sequence at "
            f"a time and all blocks recomputed, and {free / 2**30:.3g} GiB are free",
            stacklevel=2,
        )
    near = environment.device == "cuda" or found.total_bytes > free / 2
    # A pass of a part of the blocks takes all ranks, so that only whole ones are tried.
    if micro_batch_tokens == "auto" and near and not sharded:
        found = _tried(config, environment, found)
    whole = found.sequences >= config.sequences_per_step
    return environment.model_copy(
        update={
            "micro_batch": None if whole else found.sequences,
            "recompute": found.recompute,
            "sharded": sharded,
        }
    )


def is_roomy(config: RunConfig, environment: Environment, memory_bytes: int | None) -> bool:
    """Return whether a run's step on a CPU is expected to take at most half of what it may."""
    free = free_memory(environment) if memory_bytes is None else USED["cpu"] * memory_bytes
    step = estimate_memory(
        config,
        micro_batch=environment.micro_batch,
        recompute=environment.recompute,
        device=environment.device,
    )
    return environment.device == "cpu" and step.total_bytes <= free / 2


def free_memory(environment: Environment) -> float:
    """Return the bytes that a run may take, on a CPU its share by threads of what is free."""
    if environment.device == "cuda":
        return USED["cuda"] * torch.cuda.mem_get_info()[0]
    share = min(1.0, environment.threads / hardware.usable_cores().count)
    return USED["cpu"] * share * hardware.free_memory()


def _tried(config: RunConfig, environment: Environment, step: MemoryEstimate) -> MemoryEstimate:
    """Go forward and backward once, with fewer sequences at a time until that works."""
    while True:
        try:
            _one_pass(config, environment, step)
            return step
        except (RuntimeError, MemoryError) as error:
            if not is_exhaustion(error) or (step.sequences == 1 and step.recompute == "full"):
                raise
        fewer = max(1, step.sequences // 2)
        kind = step.recompute if step.sequences > 1 else "full"
        step = estimate_memory(config, micro_batch=fewer, recompute=kind, device=environment.device)
        if environment.device == "cuda":
            torch.cuda.empty_cache()


def _one_pass(config: RunConfig, environment: Environment, step: MemoryEstimate) -> None:
    """Hold what a step holds at its peak: weights, moments, gradients, and what is kept."""
    model = build(config.model).to(environment.device)
    trainer = Trainer(
        model,
        config.model_copy(update={"sequences_per_step": step.sequences}),
        compiled=environment.compiled,
        micro_batch=step.sequences,
        recompute=step.recompute,
    )
    tokens = random_tokens(config)[: step.sequences].to(environment.device)
    trainer.step(tokens, 0, 0.0)
    trainer.gradients(tokens, 0)
    if environment.device == "cuda":
        torch.cuda.synchronize()
