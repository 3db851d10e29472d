"""Measures training steps while the contenders take turns, and holds them to their bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from statistics import median

import torch

from isoflop.bench.cases import NO_PEER, Case, Contender, prepare_step
from isoflop.bench.machine import clock_of, gemm_peak
from isoflop.bench.measured import (
    TURN_SECONDS,
    Ratio,
    Report,
    Verdict,
    Watch,
    conditions,
    in_turns,
    mean_seconds,
    paired,
    text_table,
)
from isoflop.config import AttentionKernel, Precision
from isoflop.costs import parameters, train_flops_per_token
from isoflop.hardware import use_threads
from isoflop.training import (
    compiling_fault,
    environment,
    fastest_attention,
    keep_freed_memory,
)

WARM_UP = 3
"""Steps before any is timed; the first two compile."""
LEAST_ROUNDS = 8
MOST_SHAPES = 64
"""Compiled versions of a block that may live side by side; torch's default would go to eager."""
OVER_PEER = {False: 1.0, True: 1.4}
"""Least speed of our step over the peer's, both eager and both compiled."""
SHARE = {"bf16": 0.45, "fp32": 0.6}
"""Least share of the best product's FLOP/s that our compiled step reaches."""
SHARE_FROM = 512
"""Width from which on that is expected."""
ROUTED_SHARE = 0.9
"""Least share of the inverse FLOP ratio by which a routed model's step is faster."""
ROUTED_FROM = (256, 1024)
"""Width and sequence length from which on the share is expected."""


class BenchRow(Contender):
    """The measured training step of one contender."""

    group: int
    """Contenders of a group took turns; ratios exist within a group only."""
    parameters: int
    """Total parameters."""
    convention: str
    """How FLOPs are counted."""
    flops_per_step: float
    step_seconds: float
    """Median over the rounds."""
    steps_per_second: float
    achieved_flops: float
    """FLOP/s of the step."""
    peak_flops: float
    """FLOP/s of the best matrix product with the same dtype and threads."""
    width: int
    blocks: int
    heads: int
    sequence_length: int
    sequences_per_step: int
    vocabulary: int
    dtype: Precision
    attention: AttentionKernel | None = None
    """What attends all keys of our own, as training would choose; None for the rule."""
    threads: int
    rounds: int
    """Turns that every contender of the group had."""

    @property
    def shape(self) -> tuple[int, ...]:
        """What contenders that are held to a bar have in common."""
        model = (self.width, self.blocks, self.heads, self.vocabulary)
        return (*model, self.sequence_length, self.sequences_per_step, self.threads)


BenchReport = Report[BenchRow]


def bench_train(
    groups: Sequence[Sequence[Case]],
    *,
    threads: int,
    force: bool = False,
    seconds: float = 60.0,
    watch: Watch = lambda _: None,
) -> BenchReport:
    """Measure the training steps of every case, the cases of a group in turns.

    Compilation and warm-up are not timed. One thread is timed by the clock of its process, which
    stands while others are at work, several by the wall's. Memory is kept as in training, for all
    contenders. Cases of a peer that is not installed, and compiled ones without a C++ compiler, are
    left out with a note.

    Args:
        groups: contenders by group.
        threads: cores to use, the same for all.
        seconds: time for each group's rounds, of which there are at least `LEAST_ROUNDS`.

    Raises:
        ValueError: the machine is busy, or there is nothing to measure.
    """
    found = conditions(force=force, threads=threads)
    keep_freed_memory(large=True)
    kept, notes = _at_hand(groups)
    if not kept:
        raise ValueError(f"there is nothing to measure: {'; '.join(notes) or 'no cases given'}")
    watch("measuring matrix products")
    peaks = {
        precision: gemm_peak(precision, threads, clock=clock_of(threads))
        for precision in {case.config.recipe.precision for group in kept for case in group}
    }
    rows: list[BenchRow] = []
    ratios: list[Ratio] = []
    with (
        use_threads(threads),
        torch._dynamo.config.patch(recompile_limit=MOST_SHAPES),
    ):
        for index, given in enumerate(kept):
            group = [_attending(case, threads) for case in given]
            timed = _rounds(group, seconds, watch, clock_of(threads))
            rows += [
                _row(index, case, times, peaks[case.config.recipe.precision], threads)
                for case, times in zip(group, timed, strict=True)
            ]
            first, *others = _told_apart(group)
            ratios += [
                Ratio(group=index, name=name, reference=first, **paired(timed[0], times))
                for name, times in zip(others, timed[1:], strict=True)
            ]
    return BenchReport(
        rows=tuple(rows),
        ratios=tuple(ratios),
        verdicts=verdicts(rows, ratios),
        notes=tuple(notes),
        **found,
    )


def _at_hand(groups: Sequence[Sequence[Case]]) -> tuple[list[list[Case]], list[str]]:
    """Return the cases that can be measured here, and notes on the others."""
    peer = find_spec("transformers") is not None
    cases = [case for group in groups for case in group]
    fault = compiling_fault() if any(case.compiled for case in cases) else None
    notes = []
    if not peer and any(case.implementation == "transformers" for case in cases):
        notes.append(NO_PEER)
    if fault is not None:
        notes.append(f"{fault} here: no compiled steps")

    def at_hand(case: Case) -> bool:
        return (peer or case.implementation == "isoflop") and not (fault and case.compiled)

    kept = [list(filter(at_hand, group)) for group in groups]
    return [group for group in kept if group], notes


def _attending(case: Case, threads: int) -> Case:
    """Return a case with the attention that training would choose."""
    if case.implementation != "isoflop":
        return case
    kernel = fastest_attention(case.config, environment("cpu", threads, case.compiled))
    return case.model_copy(update={"attention": kernel})


def _rounds(
    group: Sequence[Case], seconds: float, watch: Watch, clock: Callable[[], float]
) -> list[list[float]]:
    """Return seconds per step by case and round."""
    turns = []
    for case in group:
        watch(f"preparing {case.name}, width {case.config.model.width}")
        step = prepare_step(case)
        for _ in range(WARM_UP):
            step()
        steps = max(1, round(TURN_SECONDS / mean_seconds(step, 1, clock)))
        turns.append(partial(mean_seconds, step, steps, clock))
    watch(f"measuring {len(group)} contenders in turns")
    return in_turns(turns, seconds=seconds, rounds=LEAST_ROUNDS)


def _row(group: int, case: Case, times: Sequence[float], peak: float, threads: int) -> BenchRow:
    config, model, seconds = case.config, case.config.model, median(times)
    flops = config.tokens_per_step * train_flops_per_token(
        model, config.data.sequence_length, config.convention
    )
    return BenchRow(
        group=group,
        **case.model_dump(include={"variant", "implementation", "compiled", "attention"}),
        parameters=parameters(model).total,
        convention=config.convention,
        flops_per_step=flops,
        step_seconds=seconds,
        steps_per_second=1 / seconds,
        achieved_flops=flops / seconds,
        peak_flops=peak,
        **model.model_dump(include={"width", "blocks", "heads", "vocabulary"}),
        sequence_length=config.data.sequence_length,
        sequences_per_step=config.sequences_per_step,
        dtype=config.recipe.precision,
        threads=threads,
        rounds=len(times),
    )


def _told_apart(group: Sequence[Case]) -> list[str]:
    """Return the contenders' names, with their sizes where the same name stands for several."""
    names = [case.name for case in group]
    if len(set(names)) == len(names):
        return names
    sizes = [parameters(case.config.model).total for case in group]
    return [f"{name} of {size:,} parameters" for name, size in zip(names, sizes, strict=True)]


def verdicts(rows: Sequence[BenchRow], ratios: Sequence[Ratio]) -> tuple[Verdict, ...]:
    """Return what the bars say; contenders of different shapes or ways are held to none.

    Args:
        rows: the first of each group is what the others are compared with.
        ratios: one for every further row, in their order.
    """
    following = iter(ratios)
    first: dict[int, BenchRow] = {}
    eager: dict[tuple[int, ...], tuple[BenchRow, float]] = {}
    found: list[Verdict] = []
    for row in rows:
        ours = first.setdefault(row.group, row)
        if row is ours:
            continue
        speed_ratio = next(following).speed_ratio
        if row.shape != ours.shape or not ours.compiled:
            continue
        if (row.variant, row.implementation, row.compiled) == (ours.variant, "isoflop", False):
            eager[row.group, *row.shape] = row, speed_ratio
        promised = ours.flops_per_step / row.flops_per_step
        if row.implementation == "transformers":
            alike, own = ours, 1.0
            if not row.compiled:
                alike, own = eager.get((row.group, *row.shape), (ours, 1.0))
            claim = f"{alike.name} is fast enough beside {row.name}"
            measured, expected = own / speed_ratio, OVER_PEER[row.compiled]
            if row.compiled and row.width >= SHARE_FROM:
                found.append(_share(ours))
        elif (
            row.compiled
            and promised > 1
            and row.width >= ROUTED_FROM[0]
            and row.sequence_length >= ROUTED_FROM[1]
        ):
            claim = f"{row.name} gains at least {ROUTED_SHARE:g} of what its FLOPs promise"
            measured, expected = speed_ratio, ROUTED_SHARE * promised
        else:
            continue
        found.append(Verdict(group=row.group, claim=claim, measured=measured, expected=expected))
    return tuple(found)


def _share(row: BenchRow) -> Verdict:
    return Verdict(
        group=row.group,
        claim=f"{row.name} reaches enough of the best product",
        measured=row.achieved_flops / row.peak_flops,
        expected=SHARE[row.dtype],
    )


COLUMNS: Mapping[str, Callable[[BenchRow], str]] = {
    "model": lambda row: row.name,
    "parameters": lambda row: f"{row.parameters:,}",
    "FLOPs/step": lambda row: f"{row.flops_per_step:.3g}",
    "ms/step": lambda row: f"{row.step_seconds * 1e3:.3g}",
    "steps/s": lambda row: f"{row.steps_per_second:.3g}",
    "GFLOP/s": lambda row: f"{row.achieved_flops / 1e9:.0f}",
    "of peak": lambda row: f"{row.achieved_flops / row.peak_flops:.0%}",
}


def describe(report: BenchReport) -> list[str]:
    """Return a report as lines for a terminal: warnings, a table per group, verdicts."""
    lines = report.warnings
    for group in sorted({row.group for row in report.rows}):
        rows = [row for row in report.rows if row.group == group]
        first, shapes = rows[0], {(row.width, row.blocks, *row.shape[-3:-1]) for row in rows}
        shape = (
            f"width {first.width}, {first.blocks} blocks, {first.heads} heads, "
            f"{first.sequences_per_step} x {first.sequence_length} tokens, "
        )
        lines += [
            f"{shape if len(shapes) == 1 else ''}vocabulary {first.vocabulary}, {first.dtype}, "
            f"{first.threads} threads; matrix products reach {first.peak_flops / 1e9:.0f} GFLOP/s; "
            f"{first.rounds} rounds",
            *text_table(COLUMNS, rows, ("model",)),
            "",
            *(
                f"{ratio.name} is {ratio.speed_ratio:.3g} times as fast as {ratio.reference} "
                f"(middle half of rounds {ratio.low:.3g} to {ratio.high:.3g})"
                for ratio in report.ratios
                if ratio.group == group
            ),
            *(verdict.line for verdict in report.verdicts if verdict.group == group),
            "",
        ]
    return [*lines, *(f"note: {note}" for note in report.notes)]
