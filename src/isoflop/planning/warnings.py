"""What is odd about a planned run: told by `isoflop plan`, and again before anything is trained.

The memory that training takes is estimated, good to about a factor of two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from isoflop.config import BlockAttention, ModelConfig, Routed, RunConfig, SwiGlu
from isoflop.costs import parameters
from isoflop.planning.cell import PlannedRun

_BYTES_PER_PARAMETER = 16
"""Weight, gradient and AdamW's two moments, four bytes each."""


class MemoryEstimate(NamedTuple):
    """Bytes of training in one process without sharding."""

    state_bytes: int
    """Weights, gradients and optimiser state."""
    sequence_bytes: int
    """What the backward pass needs of each sequence of a step."""
    sequences: int
    """Sequences held at a time: all of a step, unless it is split."""

    @property
    def total_bytes(self) -> int:
        """Bytes while a whole step is held at a time."""
        return self.state_bytes + self.sequences * self.sequence_bytes


def estimate_memory(config: RunConfig) -> MemoryEstimate:
    """Estimate what training a run holds in memory.

    Counted are fp32 weights, gradients and AdamW moments, the weights' copy in the precision of
    the products, and the values that the backward pass keeps. Scores of attention are not, since
    fused kernels keep none; eager short sequences in bf16 on a CPU do keep them, and compiled
    code keeps less than is counted here. Workspaces and the runtime come on top.
    """
    model, length = config.model, config.data.sequence_length
    value_bytes = 2 if config.recipe.precision == "bf16" else 4
    copy_bytes = value_bytes if value_bytes < 4 else 0
    per_token = _block_bytes_per_token(model, value_bytes)
    routed = len(model.routed_blocks)
    processed = (model.blocks - routed) * length * per_token
    if isinstance(model.depth, Routed):
        tokens = model.depth.selected_tokens(length)
        # The gathered tokens, and of every token the predictor's input and inner values.
        gathered = tokens * (per_token + 4 * model.width) + length * 8 * model.width
        processed += routed * gathered
    # Logits, their log-softmax in fp32 and its gradient; the final norm and the embedding.
    outside = length * (model.vocabulary * (value_bytes + 8) + 3 * model.width * 4)
    state = parameters(model).total * (_BYTES_PER_PARAMETER + copy_bytes)
    return MemoryEstimate(state, processed + outside, config.sequences_per_step)


def memory_warnings(runs: Sequence[PlannedRun], limit_bytes: int | None) -> Iterator[str]:
    """Yield a line where runs are expected to need more memory than a process may take."""
    if limit_bytes is None:
        return
    needed = [(estimate_memory(run.config).total_bytes, run) for run in runs]
    over = [(total, run) for total, run in needed if total > limit_bytes]
    if over:
        total, run = max(over, key=lambda one: one[0])
        yield (
            f"{len(over)} of {len(runs)} runs are expected to need more than the limit of "
            f"{limit_bytes / 2**30:.3g} GiB of memory, the largest ({run.variant}, "
            f"{parameters(run.config.model).total:,} parameters) about {total / 2**30:.3g} GiB"
        )


def _block_bytes_per_token(model: ModelConfig, value_bytes: int) -> int:
    """Bytes that a block keeps of one token for its backward pass."""
    queries = model.heads * model.head_width
    keys_and_values = 2 * model.key_value_heads * model.head_width
    # The stream before either norm in fp32, the normed values in the products' precision.
    norms = 2 * model.width * (4 + value_bytes)
    # Before and after rotation, what the kernel saves, and the input of the output product.
    attention = 2 * (queries + keys_and_values) + 2 * queries
    # Projections, the activation and its product (gated), or input and output of the activation.
    feed_forward = (4 if isinstance(model.feed_forward, SwiGlu) else 2) * model.hidden
    return norms + (attention + feed_forward) * value_bytes


FEW_STEPS = 200
"""Below this many steps, warm-up and the discrete schedule weigh on the outcome."""


def run_warnings(
    config: RunConfig, train_tokens: int | None, memory_bytes: float | None = None
) -> Iterator[str]:
    """Yield what is odd about a run, each to be read after its name.

    `train_tokens` are those of an epoch, None where that is not known; without `memory_bytes`
    nothing is said of memory.
    """
    model = config.model
    if train_tokens is not None and config.tokens > train_tokens:
        yield f"reads its training data {config.tokens / train_tokens:.1f} times"
    if config.steps < FEW_STEPS:
        yield f"has only {config.steps} steps"
    together = model.heads * model.head_width
    if together != model.width:
        yield (
            f"has {model.heads} heads of {model.head_width}, together {together:,}, which is not "
            f"its width of {model.width:,}"
        )
    yield from _attends_fully(model, config.data.sequence_length)
    memory = estimate_memory(config)
    if memory_bytes is not None and memory.total_bytes > memory_bytes:
        room = memory_bytes - memory.state_bytes
        if room < memory.sequence_bytes:
            devices = -(-(memory.state_bytes + memory.sequence_bytes) // int(memory_bytes))
            yield f"needs its state sharded over at least {devices} devices"
        else:
            yield f"needs steps split to {int(room // memory.sequence_bytes)} sequences at a time"


def _attends_fully(model: ModelConfig, length: int) -> Iterator[str]:
    """Warn where block attention leaves nothing out, and so is full attention."""
    if not isinstance(model.attention, BlockAttention):
        return
    attended = model.attention.block_size * model.attention.top_k
    if attended >= length:
        yield f"attends fully: {attended:,} keys of {length:,} in a sequence"
    elif isinstance(model.depth, Routed):
        selected = model.depth.selected_tokens(length)
        if attended >= selected:
            yield (
                f"attends fully in its routed blocks: {attended:,} keys of {selected:,} selected "
                "tokens"
            )


def first_of_each_kind(named: Iterable[tuple[str, Iterable[str]]], more: str) -> Iterator[str]:
    """Yield the first warning of each kind with its run, and how many are alike.

    `named` are runs, in words, with their warnings; `more` is where the others are to be found.
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
