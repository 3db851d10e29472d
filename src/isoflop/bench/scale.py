"""Measures training steps by size on one device: speed, memory, and where a step's time goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from statistics import median
from types import SimpleNamespace
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from isoflop.bench.cases import DENSE, ROUTED, ROUTED_DEPTH
from isoflop.bench.machine import check_device, gemm_peak
from isoflop.bench.measured import (
    Report,
    StepRow,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    settings_of,
    steady,
    text_table,
)
from isoflop.config import (
    Choices,
    DataConfig,
    Depth,
    Environment,
    EveryToken,
    Precision,
    Recipe,
    Recompute,
    RunConfig,
    ShapeFamily,
)
from isoflop.costs import forward_flops
from isoflop.hardware import use_threads
from isoflop.hardware.accelerators import MeasuredStep, kind_of
from isoflop.memory import estimate_memory
from isoflop.planning.sizes import shape
from isoflop.training import compiling_fault, environment, own_step
from isoflop.training.fitting import fitted

FAMILY = ShapeFamily(
    width_per_block=64.0, head_width=64, width_step=64, minimum_blocks=4, hidden_step=64
)
"""Shapes of the published sizes."""
VARIANTS: dict[str, Depth] = {DENSE: EveryToken(), ROUTED: ROUTED_DEPTH}
PUBLISHED_FROM = 5e7
"""Parameters from which on words and sequences are as published; below, they are small too."""
WORDS, SMALL_WORDS = (32_000, 2048), (256, 256)
"""Vocabulary and sequence length."""
STEP_TOKENS = {"cuda": 262_144, "cpu": 2048}
"""Of a training step, of which two parts as large as what is held at a time are measured."""
WARM_UP = 2
LEAST_ROUNDS = 3

GROUPS = {
    "attention": ("flash", "fmha", "attention", "sdpa"),
    "products": ("gemm", "cutlass", "cublas", "nvjet", "triton_tem", "::mm", "::addmm", "::bmm"),
    "optimiser": ("adam", "multi_tensor", "foreach", "vector_norm"),
    "norms": ("norm", "rsqrt"),
}
"""What kernels and operators are called, asked in this order; others are `rest`."""
SHARES = ("products", "attention", "norms", "optimiser", "rest", "idle")


class ScaleRow(MeasuredStep, StepRow):
    """The measured training step of one model."""

    variant: str
    compiled: bool
    micro_batch: int
    """Sequences held at a time."""
    recompute: Recompute
    tokens_per_second: float
    forward_flops_per_token: float
    """In full squares."""
    best_product: float
    """FLOP/s of the best matrix product here."""
    peak_bytes: int | None
    """Of the device's memory; None on a CPU."""
    estimated_bytes: int
    shares: dict[str, float]
    """Of a step's time by what runs, `idle` when nothing does; empty where nothing can be seen."""

    @property
    def of_best_product(self) -> float:
        """FLOP/s over those of the best matrix product."""
        return self.achieved_flops / self.best_product


ScaleReport = Report[ScaleRow]


def scale_config(size: float, depth: Depth, device: str, precision: Precision) -> RunConfig:
    """Return a run of the published family on a device, of about `size` total parameters.

    Raises:
        ValueError: there is no model of that size.
    """
    vocabulary, length = WORDS if size >= PUBLISHED_FROM else SMALL_WORDS
    return RunConfig(
        model=shape(FAMILY, size, vocabulary=vocabulary, choices=Choices(depth=depth)),
        data=DataConfig(tokenizer=f"ids:{vocabulary}", sequence_length=length),
        recipe=Recipe(precision=precision),
        steps=100,
        sequences_per_step=STEP_TOKENS[device] // length,
        convention="full",
    )


def scale_environment(device: str, threads: int) -> Environment:
    """Return what steps are measured with: compiled on a GPU where that works, as runs are."""
    check_device(device)
    compiled = device == "cuda" and compiling_fault(device) is None
    return environment(device, threads, compiled)


def bench_scale(
    sizes: Sequence[float],
    here: Environment,
    *,
    precision: Precision,
    seconds: float = 4.0,
    force: bool = False,
    watch: Watch = lambda _: None,
    keep: Callable[[ScaleReport], None] = lambda _: None,
) -> ScaleReport:
    """Measure steps of each size, dense and routed, one model after the other.

    What fails, for want of memory or else, is left out with a note.

    Args:
        sizes: total parameters.
        here: as `scale_environment` gives it.
        precision: of products.
        seconds: time for the rounds of each, of which there are at least `LEAST_ROUNDS`.
        keep: takes the report so far, after each row.

    Raises:
        ValueError: the machine is busy, or nothing could be measured.
    """
    configs = {
        f"{name}, {size:.3g} parameters": (name, scale_config(size, depth, here.device, precision))
        for size in sizes
        for name, depth in VARIANTS.items()
    }
    found = conditions(force=force, threads=here.threads)
    watch("measuring matrix products")
    best = gemm_peak(precision, here.threads, here.device)
    rows: list[ScaleRow] = []
    notes: list[str] = []
    with use_threads(here.threads):
        for told, (name, config) in configs.items():
            watch(f"measuring steps: {told}")
            try:
                rows.append(_row(name, config, here, best, seconds))
            except (RuntimeError, MemoryError) as error:
                notes.append(f"{told}: {' '.join(str(error).split())[:300]}")
            if rows:
                keep(ScaleReport(rows=tuple(rows), notes=tuple(notes), **found))
    if not rows:
        raise ValueError(f"nothing could be measured: {'; '.join(notes)}")
    return ScaleReport(rows=tuple(rows), notes=tuple(notes), **found)


def _row(name: str, config: RunConfig, here: Environment, best: float, seconds: float) -> ScaleRow:
    if here.compiled:
        torch.compiler.reset()
    device = here.device
    here = fitted(config, here)
    held = here.micro_batch or config.sequences_per_step
    parts = min(2 * held, config.sequences_per_step)
    config = config.model_copy(update={"sequences_per_step": parts})
    fresh(device)
    how: dict[str, Any] = {
        "compiled": here.compiled,
        "micro_batch": held,
        "recompute": here.recompute,
    }
    step = own_step(config, device=device, **how)
    (times,) = in_turns([steady(step, WARM_UP)], seconds=seconds, rounds=LEAST_ROUNDS)
    per_second = config.tokens_per_step / median(times)
    length = config.data.sequence_length
    forward = forward_flops(config.model, length, "full").per_token
    estimate = estimate_memory(config, micro_batch=held, recompute=here.recompute, device=device)
    return ScaleRow(
        **settings_of(config, here.threads),
        **how,
        kind=kind_of(config.model) or "dense",
        variant=name,
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        tokens_per_second=per_second,
        forward_flops_per_token=forward,
        achieved_flops=3 * forward * per_second,
        best_product=best,
        peak_bytes=torch.cuda.max_memory_allocated() if device == "cuda" else None,
        estimated_bytes=estimate.total_bytes,
        shares=time_shares(step, device),
    )


def fresh(device: str) -> None:
    """Forget what was held of a GPU before, and the most that was."""
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_shares(call: Callable[[], object], device: str) -> dict[str, float]:
    """Return the shares of a call's time by what runs on a device, see `ScaleRow.shares`.

    On a GPU these are kernels, on a CPU operators; a norm's backward pass is `rest` there.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    cuda = device == "cuda"
    activity = ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU
    # An older torch warns that events of one cycle are lost in the next, of which there is none.
    with profile(activities=[activity], acc_events=True) as found:
        whole = mean_seconds(call)
    shares = dict.fromkeys(SHARES, 0.0)
    for event in found.events():
        # Annotations, like the optimiser's own, span what is counted already.
        if not event.is_user_annotation:
            spent = event.self_device_time_total if cuda else event.self_cpu_time_total
            shares[_group(event)] += spent / 1e6 / whole
    busy = sum(shares.values())
    return {**shares, "idle": max(0.0, 1 - busy)} if busy else {}


def _group(event: Any) -> str:
    """Return what a profiled event belongs to, by its name or that of one that it is part of."""
    while event is not None:
        for group, signs in GROUPS.items():
            if any(sign in event.key.lower() for sign in signs):
                return group
        event = event.cpu_parent
    return "rest"


SHOWN = (
    *("variant", "parameters", "blocks", "width", "micro_batch", "sequence_length", "recompute"),
    *("tokens_per_second", "achieved_flops", "utilisation", "of_best_product", "peak_bytes"),
    "estimated_bytes",
)


def describe_scale(report: ScaleReport) -> list[str]:
    """Return a report as lines for a terminal: speeds and memory, then where the time goes."""
    first = report.rows[0]
    shares = [
        SimpleNamespace(variant=row.variant, parameters=row.parameters, **row.shares)
        for row in report.rows
        if row.shares
    ]
    return report.told(
        f"{first.device}, {first.dtype}, {'compiled' if first.compiled else 'eager'}; the best "
        f"matrix product reaches {first.best_product / 1e12:.3g} TFLOP/s. FLOPs in full squares; "
        "utilisation: of the maker's peak",
        SHOWN,
        "Shares of a step's time",
        *text_table(shares, ("variant", "parameters", *SHARES)),
    )
