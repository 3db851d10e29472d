"""What is odd about a planned run: told by `isoflop plan`, and again before anything is trained."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from isoflop.config import BlockAttention, ModelConfig, Routed, RunConfig, Start, TokenizerFile
from isoflop.costs import parameters
from isoflop.memory import USED, MemoryEstimate, smallest_step
from isoflop.planning.cell import PlannedRun


def memory_warnings(runs: Sequence[PlannedRun], limit_bytes: int | None) -> Iterator[str]:
    """Yield a line where runs are expected to need more memory than a process may take.

    What they need at least is counted: a sequence at a time, all blocks recomputed.
    """
    if limit_bytes is None:
        return
    needed = [(smallest_step(run.config, "cpu").total_bytes, run) for run in runs]
    over = [(total, run) for total, run in needed if total > limit_bytes]
    if over:
        total, run = max(over, key=lambda one: one[0])
        yield (
            f"{len(over)} of {len(runs)} runs are expected to need more than the limit of "
            f"{limit_bytes / 2**30:.3g} GiB of memory, the largest ({run.variant}, "
            f"{parameters(run.config.model).total:,} parameters) about {total / 2**30:.3g} GiB"
        )


FEW_STEPS = 200
"""Below this many steps, warm-up and the discrete schedule weigh on the outcome."""
FEW_IDS = 0.9
"""Of a checkpoint's ids; its own tokenizer lacks fewer, which round the embedding up."""


def what_would_fit(least: MemoryEstimate, memory_bytes: float, device: str) -> str:
    """Return in a clause what would hold a run whose least step the memory there is cannot.

    Args:
        least: as `smallest_step` estimates it.
        memory_bytes: of the device, or what a run may take on a CPU.
        device: `cuda` or `cpu`.
    """
    usable = USED[device] * memory_bytes
    clause = f"it needs {least.total_bytes / USED[device] / 1e9:.3g} GB"
    beside = least.total_bytes - least.state_bytes
    if device == "cuda" and beside < usable:
        devices = math.ceil(least.state_bytes / (usable - beside))
        clause += f", or {devices} devices of {memory_bytes / 1e9:.3g} GB that share its state"
    return clause


def run_warnings(config: RunConfig, train_tokens: int | None) -> Iterator[str]:
    """Yield what is odd about a run, each to be read after its name.

    `train_tokens` are those of an epoch, None where that is not known.
    """
    model = config.model
    if train_tokens is not None and config.tokens > train_tokens:
        yield f"reads its training data {config.tokens / train_tokens:.1f} times"
    corpora = config.data.corpus if isinstance(config.data.corpus, tuple) else ()
    if len(corpora) > 1 and config.evaluation_text == "start":
        yield (
            f"measures losses on the start of {len(corpora)} corpora, which may be the first "
            'alone; evaluation_text = "spread" reads all'
        )
    if config.steps < FEW_STEPS:
        yield f"has only {config.steps} steps"
    if config.start is not None and _other_tokenizer(config, config.start):
        yield (
            f"starts from a checkpoint of {model.vocabulary:,} ids with a tokenizer of "
            f"{config.data.vocabulary:,}, likely another one; its own is "
            'tokenizer = "FOLDER/tokenizer.json" under [data]'
        )
    together = model.heads * model.head_width
    if together != model.width:
        yield (
            f"has {model.heads} heads of {model.head_width}, together {together:,}, which is not "
            f"its width of {model.width:,}"
        )
    yield from _attends_fully(model, config.data.sequence_length)


def _other_tokenizer(config: RunConfig, start: Start) -> bool:
    """Return whether ids are likely not those that a checkpoint was trained on."""
    own, data = Path(start.checkpoint) / "tokenizer.json", config.data
    if isinstance(data.tokenizer, TokenizerFile) and own.is_file():
        return hashlib.sha256(own.read_bytes()).hexdigest() != data.tokenizer.sha256
    return data.vocabulary < FEW_IDS * config.model.vocabulary


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
