"""Measures training steps while the contenders take turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median, quantiles

import torch

from isoflop.bench.cases import Case
from isoflop.bench.machine import gemm_peak, refuse_busy
from isoflop.bench.report import BenchReport, BenchRow, Ratio, case_name
from isoflop.bench.steps import Step, prepare_step
from isoflop.bench.verdicts import verdicts
from isoflop.config import Precision
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware import use_threads
from isoflop.training import can_compile, environment

WARM_UP = 3
"""Steps before any is timed; the first two compile."""
TURN_SECONDS = 0.2
"""A turn is at least one step and about this long, so that caches are the contender's own."""
LEAST_ROUNDS = 8
MOST_SHAPES = 64
"""Compiled versions of a block that may live side by side; torch's default would go to eager."""


def bench_train(
    groups: Sequence[Sequence[Case]],
    *,
    threads: int,
    force: bool = False,
    seconds: float = 60.0,
    watch: Callable[[str], None] = lambda _: None,
) -> BenchReport:
    """Measure the training steps of every case, the cases of a group in turns.

    Compilation and warm-up are not timed. Cases of a peer that is not installed, and compiled
    ones without a C++ compiler, are left out with a note.

    Args:
        groups: contenders by group.
        threads: cores to use, the same for all.
        force: measure although other processes are at work; the report then says so.
        seconds: time for each group's rounds, of which there are at least `LEAST_ROUNDS`.
        watch: told what goes on.

    Raises:
        ValueError: the machine is busy, or there is nothing to measure.
    """
    reason = refuse_busy(force)
    kept, notes = _at_hand(groups)
    if not kept:
        raise ValueError(f"there is nothing to measure: {'; '.join(notes) or 'no cases given'}")
    watch("measuring matrix products")
    peaks = {
        precision: gemm_peak(precision, threads)
        for precision in {case.config.recipe.precision for group in kept for case in group}
    }
    rows: list[BenchRow] = []
    ratios: list[Ratio] = []
    with (
        use_threads(threads),
        torch._dynamo.config.patch(recompile_limit=MOST_SHAPES),
    ):
        for index, group in enumerate(kept):
            timed = _rounds(group, seconds, watch)
            rows += [
                _row(index, case, times, peaks, threads)
                for case, times in zip(group, timed, strict=True)
            ]
            names = _told_apart(group)
            ratios += [
                _ratio(index, names[0], name, timed[0], times)
                for name, times in zip(names[1:], timed[1:], strict=True)
            ]
    return BenchReport(
        rows=tuple(rows),
        ratios=tuple(ratios),
        verdicts=verdicts(rows, ratios),
        notes=tuple(notes),
        busy=reason,
        torch=torch.__version__,
        machine=environment("cpu", threads, compiled=False).machine,
    )


def _at_hand(groups: Sequence[Sequence[Case]]) -> tuple[list[list[Case]], list[str]]:
    """Return the cases that can be measured here, and notes on the others."""
    peer, compiler = find_spec("transformers") is not None, can_compile()
    notes = []
    cases = [case for group in groups for case in group]
    if not peer and any(case.implementation == "transformers" for case in cases):
        notes.append("transformers is not installed: no comparison with Hugging Face's Llama")
    if not compiler and any(case.compiled for case in cases):
        notes.append("no C++ compiler (g++ or clang++) is here: no compiled steps")
    kept = [
        [
            case
            for case in group
            if (peer or case.implementation != "transformers") and (compiler or not case.compiled)
        ]
        for group in groups
    ]
    return [group for group in kept if group], notes


def _rounds(
    group: Sequence[Case], seconds: float, watch: Callable[[str], None]
) -> list[list[float]]:
    """Return seconds per step by case and round."""
    steps: list[Step] = []
    turns: list[int] = []
    for case in group:
        watch(f"preparing {case_name(case)}, width {case.config.model.width}")
        step = prepare_step(case)
        for _ in range(WARM_UP):
            step()
        steps.append(step)
        turns.append(max(1, round(TURN_SECONDS / _turn(step, 1))))
    watch(f"measuring {len(group)} contenders in turns")
    timed: list[list[float]] = [[] for _ in group]
    until = time.perf_counter() + seconds
    while len(timed[0]) < LEAST_ROUNDS or time.perf_counter() < until:
        for step, count, times in zip(steps, turns, timed, strict=True):
            times.append(_turn(step, count))
    return timed


def _turn(step: Step, count: int) -> float:
    """Return the mean seconds of a number of steps."""
    started = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - started) / count


def _row(
    group: int, case: Case, times: Sequence[float], peaks: dict[Precision, float], threads: int
) -> BenchRow:
    config, seconds = case.config, median(times)
    flops = config.tokens_per_step * train_flops_per_token(
        config.model, config.data.sequence_length, config.convention
    )
    return BenchRow(
        group=group,
        variant=case.variant,
        implementation=case.implementation,
        compiled=case.compiled,
        parameters=parameters(config.model).total,
        convention=config.convention,
        flops_per_step=flops,
        step_seconds=seconds,
        steps_per_second=1 / seconds,
        achieved_flops=flops / seconds,
        peak_flops=peaks[config.recipe.precision],
        width=config.model.width,
        blocks=config.model.blocks,
        heads=config.model.heads,
        sequence_length=config.data.sequence_length,
        sequences_per_step=config.sequences_per_step,
        vocabulary=config.model.vocabulary,
        dtype=config.recipe.precision,
        threads=threads,
        rounds=len(times),
    )


def _told_apart(group: Sequence[Case]) -> list[str]:
    """Return the contenders' names, with their sizes where the same name stands for several."""
    names = [case_name(case) for case in group]
    if len(set(names)) == len(names):
        return names
    sizes = [parameters(case.config.model).total for case in group]
    return [f"{name} of {size:,} parameters" for name, size in zip(names, sizes, strict=True)]


def _ratio(
    group: int, first: str, other: str, first_times: Sequence[float], times: Sequence[float]
) -> Ratio:
    """Compare a contender with the group's first, round by round."""
    pairs = [a / b for a, b in zip(first_times, times, strict=True)]
    low, middle, high = quantiles(pairs, n=4, method="inclusive")
    return Ratio(group=group, name=other, reference=first, speed_ratio=middle, low=low, high=high)
