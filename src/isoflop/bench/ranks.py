"""How much faster several ranks make a step than one of them: the same step, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from statistics import median

import torch

from isoflop.bench.measured import (
    TURN_SECONDS,
    Report,
    Watch,
    conditions,
    mean_seconds,
    paired,
    text_table,
)
from isoflop.config import Precision, RunConfig
from isoflop.costs import parameters
from isoflop.frozen import Frozen
from isoflop.hardware import use_threads
from isoflop.model import build
from isoflop.training import Trainer, initialise, random_tokens
from isoflop.training.ranks import ALONE, Ranks

LEAST_ROUNDS = 6
WARM_UP = 2


class RankRow(Frozen):
    """One shape's step by one rank and by all."""

    parameters: int
    width: int
    blocks: int
    sequence_length: int
    sequences_per_step: int
    dtype: Precision
    device: str
    compiled: bool
    ranks: int
    threads: int
    """CPU threads of each rank."""
    alone_seconds: float
    """Of a step by one rank while the others wait; the median over rounds, as below."""
    together_seconds: float
    """Of the same step by all."""
    adding_seconds: float
    """Of adding up gradients alone, which is part of that."""
    efficiency: float
    """Share of as many times the speed as there are ranks."""
    low: float
    """Lower quartile of the efficiency over rounds."""
    high: float
    """Upper quartile."""
    rounds: int


RankReport = Report[RankRow]


def bench_ranks(
    configs: Sequence[RunConfig],
    ranks: Ranks,
    *,
    threads: int,
    device: str = "cpu",
    force: bool = False,
    seconds: float = 10.0,
    watch: Watch = lambda _: None,
) -> RankReport | None:
    """Measure the step of each run by one rank and by all; None where this one does not lead.

    Args:
        configs: whose steps are measured, with parameters and tokens at random.
        ranks: all call this alike.
        threads: of each rank.
        device: `cpu`, where steps are eager, or `cuda`, where they are compiled.
        force: measure although the machine is busy.
        seconds: for the rounds of each run.

    Raises:
        ValueError: the machine is busy, or a step has fewer sequences than there are ranks.
    """
    if ranks.leads:
        # All others have loaded what they need, and wait.
        found = conditions(force=force, threads=threads)
        ranks.tell("begin")
    else:
        ranks.hear()
    with use_threads(threads):
        rows = [_row(config, ranks, threads, device, seconds, watch) for config in configs]
    return RankReport(rows=tuple(rows), **found) if ranks.leads else None


def _row(
    config: RunConfig, ranks: Ranks, threads: int, device: str, seconds: float, watch: Watch
) -> RankRow:
    watch(f"measuring width {config.model.width} on {ranks.world} ranks")
    together, adding = _calls(config, ranks, device)
    alone = _calls(config, ALONE, device)[0] if ranks.leads else lambda: None
    turns = []
    for call in (alone, together, adding):
        ranks.agree(True)
        for _ in range(WARM_UP):
            call()
        # As often on every rank.
        often = torch.tensor(max(1, round(TURN_SECONDS / max(mean_seconds(call), 1e-6))))
        ranks.spread([often])
        turns.append(partial(mean_seconds, call, int(often)))
    times: list[list[float]] = [[] for _ in turns]
    until = time.perf_counter() + seconds
    while ranks.agree(
        ranks.leads and (len(times[0]) < LEAST_ROUNDS or time.perf_counter() < until)
    )[0]:
        for turn, own in zip(turns, times, strict=True):
            ranks.agree(True)
            own.append(turn())
    told = {name: value / ranks.world for name, value in paired(times[0], times[1]).items()}
    return RankRow(
        parameters=parameters(config.model).total,
        **config.model.model_dump(include={"width", "blocks"}),
        sequence_length=config.data.sequence_length,
        sequences_per_step=config.sequences_per_step,
        dtype=config.recipe.precision,
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        compiled=device == "cuda",
        ranks=ranks.world,
        threads=threads,
        alone_seconds=median(times[0]),
        together_seconds=median(times[1]),
        adding_seconds=median(times[2]),
        efficiency=told["speed_ratio"],
        low=told["low"],
        high=told["high"],
        rounds=len(times[0]),
    )


def _calls(
    config: RunConfig, ranks: Ranks, device: str
) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return a step of a run, and what adds up tensors as large as its gradients."""
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(model.to(device), config, compiled=device == "cuda", ranks=ranks)
    tokens, index = random_tokens(config).to(device), count()
    like = [torch.zeros_like(p) for p in model.parameters()]

    def step() -> None:
        if not trainer.step(tokens, next(index), 1e-3).finite:
            raise RuntimeError("a step was not finite")

    def add() -> None:
        ranks.add_up(like)
        if device == "cuda":
            torch.cuda.synchronize()

    return step, add


COLUMNS: Mapping[str, Callable[[RankRow], str]] = {
    "parameters": lambda row: f"{row.parameters:,}",
    "step": lambda row: f"{row.sequences_per_step} x {row.sequence_length:,}",
    "1 rank, ms": lambda row: f"{row.alone_seconds * 1e3:.4g}",
    "all, ms": lambda row: f"{row.together_seconds * 1e3:.4g}",
    "adding up, ms": lambda row: f"{row.adding_seconds * 1e3:.3g}",
    "efficiency": lambda row: f"{row.efficiency:.1%}",
    "middle half": lambda row: f"{row.low:.1%} to {row.high:.1%}",
    "rounds": lambda row: str(row.rounds),
}


def describe_ranks(report: RankReport) -> list[str]:
    """Return a report as lines for a terminal."""
    first = report.rows[0]
    return [
        *report.warnings,
        f"{first.ranks} ranks, {first.threads} threads each, {first.device}, {first.dtype}, "
        f"{'compiled' if first.compiled else 'eager'}; the same step by one rank and by all",
        *text_table(COLUMNS, report.rows),
    ]
