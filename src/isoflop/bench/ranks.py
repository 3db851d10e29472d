"""How much faster several ranks make a step than one of them: the same step, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from isoflop.bench.measured import (
    TURN_SECONDS,
    Paired,
    Report,
    StepRow,
    Watch,
    conditions,
    mean_seconds,
    paired,
    settings_of,
)
from isoflop.config import RunConfig
from isoflop.hardware import use_threads
from isoflop.training import own_step
from isoflop.training.ranks import Ranks

LEAST_ROUNDS = 6
WARM_UP = 2


class RankRow(Paired, StepRow):
    """One shape's step by all ranks, beside the same step by one of them while the others wait."""

    device: str
    ranks: int

    @property
    def efficiency(self) -> float:
        """Share of as many times the speed as there are ranks."""
        return self.speed_ratio / self.ranks


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
    rows = []
    with use_threads(threads):
        for config in configs:
            watch(f"measuring width {config.model.width} on {ranks.world} ranks")
            times = _times(config, ranks, device, seconds)
            rows.append(
                RankRow(
                    **settings_of(config, threads),
                    **paired(*times),
                    device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
                    ranks=ranks.world,
                )
            )
    return RankReport(rows=tuple(rows), **found) if ranks.leads else None


def _times(config: RunConfig, ranks: Ranks, device: str, seconds: float) -> list[list[float]]:
    """Return seconds of a step by one rank and by all, by round."""
    compiled = device == "cuda"
    alone = own_step(config, device=device, compiled=compiled) if ranks.leads else _wait
    together = own_step(config, device=device, compiled=compiled, ranks=ranks)
    turns: list[Callable[[], float]] = []
    for call in (alone, together):
        ranks.agree(True)
        mean_seconds(call, WARM_UP)
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
    return times


def _wait() -> None:
    """Leave a step to the rank that leads."""


SHOWN = (
    *("parameters", "sequences_per_step", "sequence_length", "step_seconds", "speed_ratio"),
    *("low", "high", "efficiency", "rounds"),
)


def describe_ranks(report: RankReport) -> list[str]:
    """Return a report as lines for a terminal."""
    first = report.rows[0]
    return report.told(
        f"{first.ranks} ranks, {first.threads} threads each, {first.device}, {first.dtype}; the "
        "same step by all and by one rank, in turns",
        SHOWN,
    )
