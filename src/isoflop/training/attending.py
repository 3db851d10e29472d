"""Which kernel attends all keys in training: measured once, where a run is first started."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from statistics import median

import torch

from isoflop.config import AttentionKernel, Environment, RunConfig
from isoflop.hardware import use_threads
from isoflop.ops import causal_attention
from isoflop.training.compiling import COMPILE_FROM_FLOPS

MARGIN = 1.1
"""How many times as fast as the rule another kernel has to be to be taken."""
SCORES = 2**22
"""Of the sequence that is measured, by as many of the heads as have these: tens of milliseconds."""
SECONDS = 0.3
LEAST_ROUNDS = 5
CANDIDATES: dict[str, tuple[AttentionKernel, ...]] = {
    "cpu": ("fused", "tiled"),
    "cuda": ("cudnn", "flash", "efficient"),
}


def fastest_attention(config: RunConfig, environment: Environment) -> AttentionKernel | None:
    """Return the kernel by which a run attends all keys fastest, None where the rule is as good.

    Every candidate goes forward and backward at the run's length, precision and threads, in turns
    with the rule of `causal_attention`; what counts is the median of paired ratios. Runs of a study
    start at different times, on a machine that others use more or less, so a measurement of near
    equals would part them by chance: the rule stays unless another is faster by more than `MARGIN`.
    Where two runs do part, they differ by rounding, and their records tell. Runs too short to be
    compiled are too short to be measured, and keep the rule, as do those without full attention.

    Args:
        config: the run.
        environment: what it is started in.
    """
    model = config.model
    full = any(model.attends_fully(block) for block in range(model.blocks))
    candidates = CANDIDATES.get(environment.device, ())
    if not full or not candidates or (config.budget_flops or 0) < COMPILE_FROM_FLOPS:
        return None
    with use_threads(environment.threads), warnings.catch_warnings():
        # Torch tells at length why a kernel takes no such tensors.
        warnings.simplefilter("ignore")
        calls = {
            kernel: _call(config, environment.device, kernel) for kernel in (None, *candidates)
        }
        able = {kernel: call for kernel, call in calls.items() if _works(call)}
        ratios = _ratios(able)
    best = max(ratios, key=lambda kernel: ratios[kernel])
    return best if ratios[best] > MARGIN else None


def _call(config: RunConfig, device: str, kernel: AttentionKernel | None) -> Callable[[], float]:
    """Return what goes forward and backward once and tells its seconds."""
    model, length = config.model, config.data.sequence_length
    shared = model.heads // model.key_value_heads
    whole = model.key_value_heads if device == "cuda" else SCORES // (shared * length**2)
    groups = min(model.key_value_heads, max(whole, torch.get_num_threads()))
    dtype = torch.bfloat16 if config.recipe.precision == "bf16" else torch.float32
    sequences = min(config.sequences_per_step, 8) if device == "cuda" else 1
    # As a model hands them on: heads of a position side by side.
    q, k, v, grad = (
        torch.randn(sequences, length, heads, model.head_width, device=device, dtype=dtype)
        .transpose(1, 2)
        .requires_grad_()
        for heads in (shared * groups, groups, groups, shared * groups)
    )

    def call() -> float:
        started = time.perf_counter()
        out = causal_attention(q, k, v, kernel=kernel)
        torch.autograd.grad(out, (q, k, v), grad)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return call


def _works(call: Callable[[], float]) -> bool:
    """Whether a kernel takes such tensors; makes it ready, too."""
    try:
        call()
    except RuntimeError:
        return False
    return True


def _ratios(
    calls: dict[AttentionKernel | None, Callable[[], float]],
) -> dict[AttentionKernel | None, float]:
    """Return how many times as fast as the rule each kernel is."""
    times: dict[AttentionKernel | None, list[float]] = {kernel: [] for kernel in calls}
    until = time.perf_counter() + SECONDS
    while len(times[None]) < LEAST_ROUNDS or time.perf_counter() < until:
        for kernel, call in calls.items():
            times[kernel].append(call())
    return {
        kernel: median(a / b for a, b in zip(times[None], own, strict=True))
        for kernel, own in times.items()
    }
