"""Measures the most memory that a training step holds, beside its estimate, and ways to the loss.

Each case has a fresh process, in which a tiny step and a tiny loss load what torch loads once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import median
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isoflop.bench.cases import hidden_width
from isoflop.bench.machine import DTYPES, check_device, grown_bytes, in_fresh_process
from isoflop.bench.measured import Report, Verdict, Watch, conditions, mean_seconds, text_table
from isoflop.config import (
    DataConfig,
    Frozen,
    ModelConfig,
    Precision,
    Recipe,
    Recompute,
    RunConfig,
)
from isoflop.costs import parameters
from isoflop.hardware import use_threads
from isoflop.memory import LOGITS_AT_A_TIME, estimate_memory
from isoflop.model import build
from isoflop.ops import chunked_cross_entropy
from isoflop.training import Trainer, initialise, keep_freed_memory, random_tokens

Way = Literal["whole logits", "in chunks", "torch's chunks", "chunks computed again"]

NO_TORCH_CHUNKS = "this torch has no chunked linear_cross_entropy: its row is left out"
CLOSE = 1.15
"""Factor between measured and estimated memory that is held to."""
HEAD_WIDTH = 64
FEW = 16
"""Tokens of a step that comes before the measured one."""
LOSSES = 3
"""Losses whose median time is told."""


class MemoryShape(Frozen):
    """What is measured: a step's model and batch, and a readout."""

    width: int = 256
    blocks: int = 10
    vocabulary: int = 32_000
    sequence_length: int = 1024
    sequences: int = 4
    """Of a step; the loss is of as many tokens."""
    loss_width: int = 512
    """Of the readout whose loss is measured alone."""
    dtype: Precision = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1

    @property
    def config(self) -> RunConfig:
        """The run whose step is measured."""
        heads, rest = divmod(self.width, HEAD_WIDTH)
        if rest or not heads:
            raise ValueError(f"width is {self.width}; expected a multiple of {HEAD_WIDTH}")
        return RunConfig(
            model=ModelConfig(
                vocabulary=self.vocabulary,
                width=self.width,
                blocks=self.blocks,
                heads=heads,
                head_width=HEAD_WIDTH,
                hidden=hidden_width(self.width),
            ),
            data=DataConfig(
                tokenizer=f"bpe:{self.vocabulary}", sequence_length=self.sequence_length
            ),
            recipe=Recipe(precision=self.dtype),
            steps=1,
            sequences_per_step=self.sequences,
        )


class StepCase(Frozen):
    """A training step, and what of it is held at a time."""

    shape: MemoryShape
    name: str
    micro_batch: int
    recompute: Recompute = "none"
    logits: int = LOGITS_AT_A_TIME
    """Most logits that exist at a time."""


class LossCase(Frozen):
    """The loss of a readout, forward and backward, in one way."""

    shape: MemoryShape
    name: Way


class MemoryRow(Frozen):
    """The most memory that one case held, above what its process held before."""

    part: Literal["step", "loss"]
    name: str
    tokens: int
    """Of a step or a loss."""
    held: int
    """Tokens held at a time."""
    width: int
    vocabulary: int
    parameters: int
    recompute: Recompute | None = None
    dtype: Precision
    device: str
    threads: int
    peak_bytes: int | None
    """None where the system does not tell."""
    estimated_bytes: int | None = None
    seconds: float
    """Of the step, or the median of several losses."""

    @property
    def ratio(self) -> float | None:
        """Estimated over measured."""
        if not self.peak_bytes or self.estimated_bytes is None:
            return None
        return self.estimated_bytes / self.peak_bytes


MemoryReport = Report[MemoryRow]


def memory_cases(shape: MemoryShape) -> tuple[StepCase | LossCase, ...]:
    """Return the standard comparison at a shape: a step in each way, a loss in each way.

    Raises:
        ValueError: the shape is none that a model has.
    """
    whole = shape.config.tokens_per_step * shape.vocabulary
    kinds: tuple[Recompute, ...] = ("none", "selective", "full")
    steps = [StepCase(shape=shape, name="whole logits", micro_batch=shape.sequences, logits=whole)]
    for held in dict.fromkeys((shape.sequences, 1)):
        for kind in kinds:
            name = "all sequences" if held == shape.sequences else "one sequence at a time"
            steps.append(StepCase(shape=shape, name=name, micro_batch=held, recompute=kind))
    ways: list[Way] = ["whole logits", "in chunks", "torch's chunks", "chunks computed again"]
    return (*steps, *(LossCase(shape=shape, name=way) for way in ways))


def bench_memory(
    cases: Iterable[StepCase | LossCase],
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
    at_hand = [case for case in cases if not _needs_newer_torch(case)]
    left_out = [case for case in cases if _needs_newer_torch(case)]
    shape = at_hand[0].shape
    check_device(shape.device)
    found = conditions(force=force, threads=shape.threads)
    rows = []
    for case in at_hand:
        watch(f"{'step' if isinstance(case, StepCase) else 'loss'}: {case.name}")
        rows.append(in_fresh_process(measure, case))
    verdicts = tuple(_verdict(row) for row in rows if row.ratio is not None)
    notes = (NO_TORCH_CHUNKS,) if left_out else ()
    return MemoryReport(rows=tuple(rows), verdicts=verdicts, notes=notes, **found)


def measure(case: StepCase | LossCase) -> MemoryRow:
    """Measure a case in this process, which should have done nothing before."""
    # As training does.
    keep_freed_memory()
    with use_threads(case.shape.threads):
        match case:
            case StepCase():
                return _step_row(case)
            case LossCase():
                return _loss_row(case)
            case _:
                assert_never(case)


def _step_row(case: StepCase) -> MemoryRow:
    shape, config = case.shape, case.shape.config
    tiny = {"width": HEAD_WIDTH, "blocks": 1, "vocabulary": 512, "sequence_length": 128}
    _steps(case.model_copy(update={"shape": shape.model_copy(update=tiny)}))
    seconds: list[float] = []
    peak = grown_bytes(lambda: seconds.append(_steps(case)), shape.device)
    estimate = estimate_memory(
        config,
        micro_batch=case.micro_batch,
        recompute=case.recompute,
        device=shape.device,
        logits=case.logits,
    )
    return MemoryRow(
        part="step",
        name=case.name,
        tokens=config.tokens_per_step,
        held=case.micro_batch * shape.sequence_length,
        parameters=parameters(config.model).total,
        width=shape.width,
        recompute=case.recompute,
        peak_bytes=peak,
        estimated_bytes=estimate.total_bytes,
        seconds=seconds[0],
        **_told(shape),
    )


def _steps(case: StepCase) -> float:
    """Make a step after one of a few tokens that makes the optimiser's state; return its time."""
    config, device = case.shape.config, case.shape.device
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


def _loss_row(case: LossCase) -> MemoryRow:
    shape = case.shape
    tokens = shape.sequences * shape.sequence_length
    tiny = shape.model_copy(update={"vocabulary": 512, "loss_width": 64, "sequences": 1})
    _loss(case.name, tiny)()
    call, times = partial(mean_seconds, _loss(case.name, shape)), []
    peak = grown_bytes(lambda: times.append(call()), shape.device)
    times += [call() for _ in range(LOSSES - 1)]
    return MemoryRow(
        part="loss",
        name=case.name,
        tokens=tokens,
        held=tokens,
        parameters=shape.vocabulary * shape.loss_width,
        width=shape.loss_width,
        peak_bytes=peak,
        seconds=median(times),
        **_told(shape),
    )


def _loss(way: Way, shape: MemoryShape) -> Callable[[], float]:
    """Return what computes a loss and its gradients, by stream and head, in the given way."""
    generator = torch.Generator().manual_seed(0)
    tokens, dtype = shape.sequences * shape.sequence_length, DTYPES[shape.dtype]
    x, weight = (
        torch.randn(count, shape.loss_width, generator=generator).to(shape.device, dtype)
        for count in (tokens, shape.vocabulary)
    )
    x, weight = nn.Parameter(x), nn.Parameter(weight / shape.loss_width**0.5)
    targets = torch.randint(shape.vocabulary, (tokens,), generator=generator).to(shape.device)
    mean = partial(WAYS[way], x, weight, targets)

    def call() -> float:
        # The type stub of grad is untyped in torch.
        loss = mean()
        gradients = torch.autograd.grad(loss, (x, weight))
        return float(loss.detach()) + 0 * float(gradients[1][0, 0])

    return call


def _whole(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((x @ weight.T).float(), targets)


def _in_chunks(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return chunked_cross_entropy(x, weight, targets)[0]


def _torch_chunks(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    # Not in the oldest torch that isoflop runs with.
    options = getattr(nn, "LinearCrossEntropyOptions")()  # noqa: B009
    loss: Tensor = getattr(F, "linear_cross_entropy")(x, weight, targets, options=options)  # noqa: B009
    return loss


def _again(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    def summed(chunk: Tensor, of: Tensor) -> Tensor:
        return F.cross_entropy((chunk @ weight.T).float(), of, reduction="sum")

    rows = max(1, LOGITS_AT_A_TIME // weight.shape[0])
    chunks = zip(torch.split(x, rows), torch.split(targets, rows), strict=True)
    losses = [checkpoint(summed, *chunk, use_reentrant=False) for chunk in chunks]
    return torch.stack(losses).sum() / len(x)


WAYS: Mapping[Way, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "whole logits": _whole,
    "in chunks": _in_chunks,
    "torch's chunks": _torch_chunks,
    "chunks computed again": _again,
}


def _needs_newer_torch(case: StepCase | LossCase) -> bool:
    return case.name == "torch's chunks" and not hasattr(nn, "LinearCrossEntropyOptions")


def _told(shape: MemoryShape) -> dict[str, object]:
    device = torch.cuda.get_device_name() if shape.device == "cuda" else "cpu"
    return {
        "vocabulary": shape.vocabulary,
        "dtype": shape.dtype,
        "device": device,
        "threads": shape.threads,
    }


def _verdict(row: MemoryRow) -> Verdict:
    assert row.ratio is not None
    return Verdict(
        claim=f"{row.name}, {row.recompute} computed again: memory is as estimated",
        measured=min(row.ratio, 1 / row.ratio),
        expected=1 / CLOSE,
    )


COLUMNS: Mapping[str, Callable[[MemoryRow], str]] = {
    "": lambda row: row.part,
    "how": lambda row: row.name,
    "computed again": lambda row: row.recompute or "",
    "tokens": lambda row: f"{row.tokens:,}",
    "held": lambda row: f"{row.held:,}",
    "measured MB": lambda row: _megabytes(row.peak_bytes),
    "estimated MB": lambda row: _megabytes(row.estimated_bytes),
    "ratio": lambda row: "-" if row.ratio is None else f"{row.ratio:.2f}",
    "s": lambda row: f"{row.seconds:.2f}",
}


def describe_memory(report: MemoryReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table, verdicts."""
    step, loss = (next(row for row in report.rows if row.part == part) for part in ("step", "loss"))
    return [
        *report.warnings,
        f"step of {step.parameters:,} parameters, width {step.width}; loss at width {loss.width}; "
        f"vocabulary {step.vocabulary:,}, {step.dtype}, {step.device}, {step.threads} threads",
        *text_table(COLUMNS, report.rows, ("", "how", "computed again")),
        "",
        *(verdict.line for verdict in report.verdicts),
        *(f"note: {note}" for note in report.notes),
    ]


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.0f}"
