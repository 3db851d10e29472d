"""Measures the most memory that a training step holds, beside its estimate.

Each case has a fresh process, in which a tiny step loads what torch loads once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from isoflop.bench.cases import HEAD_WIDTH, plain_model
from isoflop.bench.machine import check_device, grown_bytes, in_fresh_process
from isoflop.bench.measured import Report, StepRow, Watch, conditions, settings_of
from isoflop.config import (
    DataConfig,
    Frozen,
    Precision,
    Recipe,
    Recompute,
    RunConfig,
)
from isoflop.hardware import use_threads
from isoflop.memory import LOGITS_AT_A_TIME, estimate_memory
from isoflop.model import build
from isoflop.training import Trainer, initialise, keep_freed_memory, random_tokens

FEW = 16
"""Tokens of a step that comes before the measured one."""


class MemoryCase(Frozen):
    """A training step, and what of it is held at a time."""

    config: RunConfig
    device: Literal["cpu", "cuda"]
    threads: int
    micro_batch: int
    """Sequences held at a time."""
    recompute: Recompute = "none"
    logits: int = LOGITS_AT_A_TIME
    """Most logits that exist at a time."""

    @property
    def name(self) -> str:
        """What is held in words."""
        held = "all" if self.micro_batch == self.config.sequences_per_step else "one at a time"
        return f"{held}, {'whole' if self.logits > LOGITS_AT_A_TIME else 'chunked'} logits"


class MemoryRow(StepRow):
    """The most memory that one step held, above what its process held before."""

    name: str
    micro_batch: int
    recompute: Recompute
    device: str
    peak_bytes: int | None
    """None where the system does not tell."""
    estimated_bytes: int
    seconds: float
    """Of the step."""

    @property
    def ratio(self) -> float | None:
        """Estimated over measured."""
        return self.estimated_bytes / self.peak_bytes if self.peak_bytes else None


MemoryReport = Report[MemoryRow]


def memory_config(
    *,
    width: int = 256,
    blocks: int = 10,
    vocabulary: int = 32_000,
    sequence_length: int = 1024,
    sequences: int = 4,
    dtype: Precision = "fp32",
) -> RunConfig:
    """Return a run of a dense model, whose step is measured.

    Raises:
        ValueError: the width is no multiple of a head's.
    """
    return RunConfig(
        model=plain_model(width, blocks, HEAD_WIDTH, vocabulary),
        data=DataConfig(tokenizer=f"bpe:{vocabulary}", sequence_length=sequence_length),
        recipe=Recipe(precision=dtype),
        steps=1,
        sequences_per_step=sequences,
    )


def memory_cases(
    config: RunConfig, *, device: Literal["cpu", "cuda"] = "cpu", threads: int = 1
) -> tuple[MemoryCase, ...]:
    """Return the standard comparison: the step of a run in each way."""
    whole, all_held = config.tokens_per_step * config.model.vocabulary, config.sequences_per_step
    plain = MemoryCase(config=config, device=device, threads=threads, micro_batch=all_held)
    kinds: tuple[Recompute, ...] = ("none", "selective", "full")
    return (
        plain.model_copy(update={"logits": whole}),
        *(
            plain.model_copy(update={"micro_batch": held, "recompute": kind})
            for held in dict.fromkeys((all_held, 1))
            for kind in kinds
        ),
    )


def bench_memory(
    cases: Sequence[MemoryCase],
    *,
    force: bool = False,
    watch: Watch = lambda _: None,
) -> MemoryReport:
    """Measure every case in a process of its own.

    Args:
        cases: as `memory_cases` makes them.

    Raises:
        ValueError: the machine is busy, or there is no such device.
    """
    check_device(cases[0].device)
    found = conditions(force=force, threads=cases[0].threads)
    rows = []
    for case in cases:
        watch(f"step: {case.name}, recomputed: {case.recompute}")
        rows.append(in_fresh_process(measure, case))
    return MemoryReport(rows=tuple(rows), **found)


def measure(case: MemoryCase) -> MemoryRow:
    """Measure a case in this process, which should have done nothing before."""
    # As training does.
    keep_freed_memory()
    config, device = case.config, case.device
    how = case.model_dump(include={"micro_batch", "recompute"})
    tiny = memory_config(
        width=HEAD_WIDTH,
        blocks=1,
        vocabulary=512,
        sequence_length=128,
        sequences=config.sequences_per_step,
        dtype=config.recipe.precision,
    )
    seconds: list[float] = []
    with use_threads(case.threads):
        _steps(case.model_copy(update={"config": tiny}))
        peak = grown_bytes(lambda: seconds.append(_steps(case)), device)
    estimate = estimate_memory(config, device=device, logits=case.logits, **how)
    return MemoryRow(
        **settings_of(config, case.threads),
        **how,
        name=case.name,
        device=device,
        peak_bytes=peak,
        estimated_bytes=estimate.total_bytes,
        seconds=seconds[0],
    )


def _steps(case: MemoryCase) -> float:
    """Make a step after one of a few tokens that makes the optimiser's state; return its time."""
    config, device = case.config, case.device
    model = build(config.model)
    initialise(model, config.recipe, 0)
    trainer = Trainer(
        model.to(device),
        config,
        compiled=False,
        micro_batch=case.micro_batch,
        recompute=case.recompute,
        logits=case.logits,
    )
    tokens = random_tokens(config).to(device)
    assert trainer.step(tokens[:1, : FEW + 1], 0, 1.0).finite
    started = time.perf_counter()
    # Reading the loss waits for the device.
    assert trainer.step(tokens, 1, 1.0).finite
    return time.perf_counter() - started


SHOWN = ("name", "recompute", "peak_bytes", "estimated_bytes", "ratio", "seconds")


def describe_memory(report: MemoryReport) -> list[str]:
    """Return a report as lines for a terminal."""
    row = report.rows[0]
    return report.told(
        f"step of {row.sequences_per_step} x {row.sequence_length:,} tokens, {row.parameters:,} "
        f"parameters, {row.dtype}, {row.device}, {row.threads} threads",
        SHOWN,
    )
