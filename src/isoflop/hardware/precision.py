"""Which precision is faster here, measured in half a second: no list of processors can tell.

A matrix product and causal attention of a run's own sizes, forward and backward, in both. Where a
processor has no bf16 units its products are tens of times slower than in fp32, so sizes grow until
they take a measurable time and no further.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from isoflop.config import (
    ModelConfig,
    Precision,
    PrecisionChoice,
    PrecisionSpeed,
    PrecisionSpeeds,
    RunConfig,
)
from isoflop.costs import forward_flops, parameters
from isoflop.hardware.processor import machine
from isoflop.hardware.threads import use_threads

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

Measure = Callable[[RunConfig, str], PrecisionSpeeds]


def choose_precision(
    configs: Sequence[RunConfig],
    *,
    device: str = "cpu",
    threads: int = 1,
    measure: Measure | None = None,
    capability: Callable[[], tuple[int, int]] | None = None,
) -> PrecisionChoice:
    """Return the precision in which runs are faster here, with the figures.

    CUDA devices of compute capability 8.0 and above take bf16. All else takes what is measured to
    be faster at the sizes of the run whose model is the middle one by size: bf16 where it is
    `FASTER` times as fast as fp32, else fp32. The precision that the runs name plays no part.

    Args:
        configs: runs of a study; at least one.
        device: of torch: `cpu`, `cuda` or `mps`.
        threads: of a run on the CPU.
        measure: from a run and a device to speeds; None for `measure_speeds`.
        capability: compute capability of the CUDA device; None asks torch.
    """
    import torch

    def chosen(
        precision: Precision, speeds: PrecisionSpeeds | None, has: str | None = None
    ) -> PrecisionChoice:
        return PrecisionChoice(
            precision=precision,
            machine=machine(),
            device=device,
            threads=threads,
            torch=torch.__version__,
            compute_capability=has,
            speeds=speeds,
        )

    if device == "cuda":
        found = (capability or torch.cuda.get_device_capability)()
        if found >= BF16_CAPABILITY:
            return chosen("bf16", None, f"{found[0]}.{found[1]}")
    ordered = sorted(configs, key=lambda config: parameters(config.model).total)
    with use_threads(threads):
        speeds = (measure or measure_speeds)(ordered[len(ordered) // 2], device)
    return chosen(speeds.faster, speeds)


def measure_speeds(config: RunConfig, device: str = "cpu") -> PrecisionSpeeds:
    """Measure the product and the attention of a run in both precisions, as they are now.

    Args:
        config: the run; its sizes count, not its precision.
        device: of torch.
    """
    model, length = config.model, config.data.sequence_length
    width, hidden = min(MOST_WIDTH, model.width), min(MOST_WIDTH, model.hidden)
    product = _Product(width, hidden, device)
    attention = _Attention(model, device)
    rows = _affordable(product, FEWEST_TOKENS, min(MOST_TOKENS, config.tokens_per_step))
    attended = _affordable(attention, FEWEST_TOKENS, min(MOST_TOKENS, length))
    fp32, bf16 = (
        PrecisionSpeed(
            product_flops=product.flops(rows) / _best_seconds(product, rows, precision),
            attention_flops=attention.flops(attended)
            / _best_seconds(attention, attended, precision),
        )
        for precision in _PRECISIONS
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


_PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")


class _Product:
    """A product of (tokens, width) with (width, hidden), cast as in a training step."""

    def __init__(self, width: int, hidden: int, device: str) -> None:
        import torch

        self.device = device
        self._weight = torch.randn(hidden, width, device=device, requires_grad=True)

    def flops(self, tokens: int) -> float:
        """Forward, and twice as many backward."""
        return 6.0 * tokens * self._weight.numel()

    def prepare(self, tokens: int, dtype: torch.dtype) -> Callable[[], object]:
        """Return what multiplies, forward and backward."""
        import torch
        import torch.nn.functional as F

        left = torch.randn(tokens, self._weight.shape[1], device=self.device, dtype=dtype)
        left.requires_grad_()

        def once() -> None:
            with torch.autocast(self.device, torch.bfloat16, enabled=dtype == torch.bfloat16):
                out = F.linear(left, self._weight)
            torch.autograd.grad(out, (left, self._weight), torch.ones_like(out))

        return once


class _Attention:
    """Causal attention of one sequence, over all heads."""

    def __init__(self, model: ModelConfig, device: str) -> None:
        self.device = device
        self._heads, self._head_width = model.heads, model.head_width

    def flops(self, tokens: int) -> float:
        """Scores and weighted sum over the pairs that may attend, and twice as many backward."""
        return 12.0 * self._heads * self._head_width * tokens * (tokens + 1) / 2

    def prepare(self, tokens: int, dtype: torch.dtype) -> Callable[[], object]:
        """Return what attends, forward and backward."""
        import torch

        from isoflop.ops import causal_attention

        shape = (1, self._heads, tokens, self._head_width)
        inputs = tuple(
            torch.randn(shape, device=self.device, dtype=dtype).requires_grad_() for _ in range(3)
        )

        def once() -> None:
            out = causal_attention(*inputs)
            torch.autograd.grad(out, inputs, torch.ones_like(out))

        return once


def _affordable(what: _Product | _Attention, tokens: int, most: int) -> int:
    """Return tokens, up to `most`, at which a pass in the slower precision is measurable."""
    tokens = min(tokens, most)
    while tokens < most and _seconds(what, tokens) < LONG_SECONDS:
        tokens = min(2 * tokens, most)
    return tokens


def _seconds(what: _Product | _Attention, tokens: int) -> float:
    """Return the time of one pass in bf16, the one that may be very slow."""
    import torch

    once = what.prepare(tokens, torch.bfloat16)
    once()
    return _timed(once, what.device)


def _best_seconds(what: _Product | _Attention, tokens: int, precision: Precision) -> float:
    import torch

    once = what.prepare(tokens, torch.bfloat16 if precision == "bf16" else torch.float32)
    once()
    best = _timed(once, what.device)
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        best = min(best, _timed(once, what.device))
    return best


def _timed(once: Callable[[], object], device: str) -> float:
    _wait(device)
    started = time.perf_counter()
    once()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: str) -> None:
    """Wait until a device has done what it was told."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()
