"""Which precision is faster here, measured in half a second: no list of processors can tell.

A matrix product and causal attention of a run's own sizes, forward and backward, in both. Where a
processor has no bf16 units its products are tens of times slower than in fp32, so sizes grow until
they take a measurable time and no further.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from isoflop.config import (
    ModelConfig,
    PrecisionChoice,
    PrecisionSpeed,
    PrecisionSpeeds,
    RunConfig,
)
from isoflop.costs import forward_flops, parameters
from isoflop.hardware.cores import machine

if TYPE_CHECKING:
    import torch

MOST_TOKENS = 2048
"""Tokens at most of a measured product or attention."""
FEWEST_TOKENS = 16
MOST_WIDTH = 1024
"""Sides of a measured product are cut to this; larger ones are no faster per FLOP."""
LONG_SECONDS = 0.03
"""Time of one pass from which its size grows no further."""
SECONDS = 0.05
"""Time spent on each of two passes in each of two precisions."""
BF16_CAPABILITY = (8, 0)
"""Compute capability from which CUDA devices have bf16 in hardware."""

Prepare = Callable[[int, "torch.dtype"], Callable[[], object]]
"""Of a number of tokens and a precision, what runs them forward and backward."""


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Let torch use a number of threads for a while.

    Raises:
        ValueError: the number is not positive.
    """
    import torch

    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)


def choose_precision(
    configs: Sequence[RunConfig],
    *,
    device: str = "cpu",
    threads: int = 1,
) -> PrecisionChoice:
    """Return the precision in which runs are faster here, with the figures.

    CUDA devices of compute capability 8.0 and above take bf16. All else takes what is measured to
    be faster at the sizes of the run whose model is the middle one by size: bf16 where it is
    `FASTER` times as fast as fp32, else fp32. The precision that the runs name plays no part.

    Args:
        configs: runs of a study; at least one.
        device: of torch: `cpu` or `cuda`.
        threads: of a run on the CPU.
    """
    import torch

    speeds, has = None, None
    if device == "cuda":
        found = torch.cuda.get_device_capability()
        has = f"{found[0]}.{found[1]}" if found >= BF16_CAPABILITY else None
    if has is None:
        ordered = sorted(configs, key=lambda config: parameters(config.model).total)
        with use_threads(threads):
            speeds = measure_speeds(ordered[len(ordered) // 2], device)
    return PrecisionChoice(
        precision="bf16" if speeds is None else speeds.faster,
        machine=machine(),
        device=device,
        threads=threads,
        torch=torch.__version__,
        compute_capability=has,
        speeds=speeds,
    )


def measure_speeds(config: RunConfig, device: str = "cpu") -> PrecisionSpeeds:
    """Measure the product and the attention of a run in both precisions, as they are now.

    The run's sizes count, not its precision.
    """
    import torch

    model, length = config.model, config.data.sequence_length
    width, hidden = min(MOST_WIDTH, model.width), min(MOST_WIDTH, model.hidden)
    product = _product(width, hidden, device)
    attention = _attention(model, device)
    rows = _affordable(product, device, min(MOST_TOKENS, config.tokens_per_step))
    attended = _affordable(attention, device, min(MOST_TOKENS, length))
    # Forward, and twice as many backward; scores and weighted sum over the pairs that may attend.
    product_flops = 6.0 * rows * width * hidden
    attention_flops = 12.0 * model.heads * model.head_width * attended * (attended + 1) / 2
    fp32, bf16 = (
        PrecisionSpeed(
            product_flops=product_flops / _seconds(product(rows, dtype), device, SECONDS),
            attention_flops=attention_flops / _seconds(attention(attended, dtype), device, SECONDS),
        )
        for dtype in (torch.float32, torch.bfloat16)
    )
    flops = forward_flops(model, length, "causal").parts
    return PrecisionSpeeds(
        rows=rows,
        width=width,
        hidden=hidden,
        attended=attended,
        head_width=model.head_width,
        attention_share=flops["attention_scores"] / sum(flops.values()),
        fp32=fp32,
        bf16=bf16,
    )


def _product(width: int, hidden: int, device: str) -> Prepare:
    """Return what multiplies (tokens, width) with (width, hidden), cast as in a training step."""
    import torch
    import torch.nn.functional as F

    weight = torch.randn(hidden, width, device=device, requires_grad=True)

    def prepare(tokens: int, dtype: torch.dtype) -> Callable[[], object]:
        left = torch.randn(tokens, width, device=device, dtype=dtype).requires_grad_()
        return partial(_pass, F.linear, (left, weight), dtype)

    return prepare


def _attention(model: ModelConfig, device: str) -> Prepare:
    """Return what attends causally within one sequence, over all heads."""
    import torch

    from isoflop.ops import causal_attention

    def prepare(tokens: int, dtype: torch.dtype) -> Callable[[], object]:
        shape = (1, model.heads, tokens, model.head_width)
        inputs = tuple(
            torch.randn(shape, device=device, dtype=dtype).requires_grad_() for _ in range(3)
        )
        return partial(_pass, causal_attention, inputs, dtype)

    return prepare


def _pass(
    forward: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...], dtype: torch.dtype
) -> None:
    """Go forward and backward once."""
    import torch

    bf16 = dtype == torch.bfloat16
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
        out = forward(*inputs)
    torch.autograd.grad(out, inputs, torch.ones_like(out))


def _affordable(prepare: Prepare, device: str, most: int) -> int:
    """Return tokens, up to `most`, at which a pass in bf16, maybe a slow one, is measurable."""
    import torch

    tokens = min(FEWEST_TOKENS, most)
    while tokens < most and _seconds(prepare(tokens, torch.bfloat16), device) < LONG_SECONDS:
        tokens = min(2 * tokens, most)
    return tokens


def _seconds(once: Callable[[], object], device: str, long: float = 0.0) -> float:
    """Return the time of one pass after a first one, the best of all within `long` seconds."""
    import torch

    def timed() -> float:
        started = time.perf_counter()
        once()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    timed()
    best, until = timed(), time.perf_counter() + long
    while time.perf_counter() < until:
        best = min(best, timed())
    return best
