"""What is odd about a planned run: told by `isoflop plan`, and again before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from isoflop.config import BlockAttention, ModelConfig, Routed, RunConfig
from isoflop.costs import parameters
from isoflop.planning.cell import PlannedRun
from isoflop.planning.memory import estimate_memory

FEW_STEPS = 200
"""Below this many steps, warm-up and the discrete schedule weigh on the outcome."""


def run_warnings(
    config: RunConfig, train_tokens: int | None, memory_bytes: float | None = None
) -> tuple[str, ...]:
    """Return what is odd about a run, each to be read after its name.

    Args:
        config: The run.
        train_tokens: Tokens that an epoch goes through; None where that is not known.
        memory_bytes: Memory that it may use; None for no warnings about it.
    """
    warnings = []
    if train_tokens is not None and config.tokens > train_tokens:
        warnings.append(f"reads its training data {config.tokens / train_tokens:.1f} times")
    if config.steps < FEW_STEPS:
        warnings.append(f"has only {config.steps} steps")
    warnings += _heads_warnings(config.model)
    warnings += _attention_warnings(config)
    memory = estimate_memory(config)
    if memory_bytes is not None and memory.total_bytes > memory_bytes:
        room = memory_bytes - memory.state_bytes
        if room < memory.sequence_bytes:
            devices = -(-(memory.state_bytes + memory.sequence_bytes) // int(memory_bytes))
            warnings.append(f"needs its state sharded over at least {devices} devices")
        else:
            at_once = int(room // memory.sequence_bytes)
            warnings.append(f"needs steps split to {at_once} sequences at a time")
    return tuple(warnings)


def first_of_each_kind(named: Iterable[tuple[str, Sequence[str]]], more: str) -> Iterator[str]:
    """Yield the first warning of each kind with its run, and how many are alike.

    Args:
        named: A run, in words, and its warnings.
        more: Where the others are to be found.
    """
    kinds: dict[str, list[str]] = {}
    for where, warnings in named:
        for warning in warnings:
            kind = re.sub(r"[\d.,]+", "#", warning)
            kinds.setdefault(kind, []).append(f"{where}, {warning}")
    for first, *others in kinds.values():
        alike = f" (and {len(others)} more alike; {more})" if others else ""
        yield f"{first}{alike}"


def short_flops(budget_flops: float) -> str:
    """Return a budget as studies write it: 2e10, not 2e+10."""
    return f"{budget_flops:.3g}".replace("e+0", "e").replace("e+", "e")


def planned_warnings(runs: Iterable[PlannedRun], train_tokens: int) -> Iterator[str]:
    """Yield what is odd about runs that are about to be trained, each kind once."""
    named = (
        (
            f"{run.variant} at {short_flops(run.budget_flops)} FLOPs, "
            f"{parameters(run.config.model).total:,} parameters",
            run_warnings(run.config, train_tokens),
        )
        for run in runs
    )
    return first_of_each_kind(named, "`isoflop plan --json` lists them")


def _heads_warnings(model: ModelConfig) -> list[str]:
    """Warn where heads do not make up the width, so that attention is wider or narrower."""
    together = model.heads * model.head_width
    if together == model.width:
        return []
    return [
        f"has {model.heads} heads of {model.head_width}, together {together:,}, which is not its "
        f"width of {model.width:,}"
    ]


def _attention_warnings(config: RunConfig) -> list[str]:
    """Warn where block attention leaves nothing out, and so is full attention."""
    model, length = config.model, config.data.sequence_length
    if not isinstance(model.attention, BlockAttention):
        return []
    attended = model.attention.block_size * model.attention.top_k
    if attended >= length:
        return [f"attends fully: {attended:,} keys of {length:,} in a sequence"]
    if isinstance(model.depth, Routed):
        selected = model.depth.selected_tokens(length)
        if attended >= selected:
            return [
                f"attends fully in its routed blocks: {attended:,} keys of {selected:,} selected "
                "tokens"
            ]
    return []
