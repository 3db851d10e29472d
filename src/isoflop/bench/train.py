"""Measures training steps while the contenders take turns, and holds them to their bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from isoflop.bench.cases import DENSE, NO_PEER, Case, Contender, prepare_step
from isoflop.bench.machine import clock_of, gemm_peak
from isoflop.bench.measured import (
    Paired,
    Report,
    StepRow,
    Watch,
    conditions,
    in_turns,
    paired,
    settings_of,
    steady,
)
from isoflop.config import AttentionKernel, Frozen
from isoflop.costs import train_flops_per_token
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


class BenchRow(Contender, Paired, StepRow):
    """The measured training step of one contender."""

    group: int
    """Contenders of a group took turns; ratios are to its first."""
    convention: str
    """How FLOPs are counted."""
    flops_per_step: float
    steps_per_second: float
    achieved_flops: float
    """FLOP/s of the step."""
    peak_flops: float
    """FLOP/s of the best matrix product with the same dtype and threads."""
    attention: AttentionKernel | None
    """What attends all keys of our own, as training would choose; None for the rule."""

    @property
    def of_peak(self) -> float:
        """Share of the best product's FLOP/s."""
        return self.achieved_flops / self.peak_flops

    @property
    def shape(self) -> tuple[int, ...]:
        """What contenders that are held to a bar have in common, with their group."""
        return self.group, self.width, self.blocks, self.sequence_length, self.sequences_per_step


class Verdict(Frozen):
    """A bar, what was measured against it, and whether it holds."""

    group: int
    claim: str
    measured: float
    expected: float
    """Least value of `measured` at which the claim holds."""

    @property
    def held(self) -> bool:
        """Whether the bar is reached."""
        return self.measured >= self.expected

    @property
    def line(self) -> str:
        """The bar as a line for a terminal."""
        return (
            f"{'held' if self.held else 'NOT HELD'}: {self.claim}: {self.measured:.3g}, "
            f"expected at least {self.expected:.3g}"
        )


class BenchReport(Report[BenchRow]):
    """Measured steps, and what the bars say of them."""

    verdicts: tuple[Verdict, ...] = ()


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
    clock = clock_of(threads)
    peaks = {
        precision: gemm_peak(precision, threads, clock=clock)
        for precision in {case.config.recipe.precision for group in kept for case in group}
    }
    rows: list[BenchRow] = []
    with use_threads(threads):
        for index, given in enumerate(kept):
            group = [_attending(case, threads) for case in given]
            turns = []
            for case in group:
                watch(f"preparing {case.name}, width {case.config.model.width}")
                turns.append(steady(prepare_step(case), WARM_UP, clock))
            watch(f"measuring {len(group)} contenders in turns")
            timed = in_turns(turns, seconds=seconds, rounds=LEAST_ROUNDS)
            for case, times in zip(group, timed, strict=True):
                peak = peaks[case.config.recipe.precision]
                rows.append(_row(case, index, paired(timed[0], times), peak, threads))
    return BenchReport(rows=tuple(rows), verdicts=verdicts(rows), notes=tuple(notes), **found)


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


def _row(case: Case, group: int, times: Mapping[str, Any], peak: float, threads: int) -> BenchRow:
    config, seconds = case.config, times["step_seconds"]
    flops = config.tokens_per_step * train_flops_per_token(
        config.model, config.data.sequence_length, config.convention
    )
    return BenchRow(
        **case.model_dump(include={"variant", "implementation", "compiled", "attention"}),
        **settings_of(config, threads),
        **times,
        group=group,
        convention=config.convention,
        flops_per_step=flops,
        steps_per_second=1 / seconds,
        achieved_flops=flops / seconds,
        peak_flops=peak,
    )


def verdicts(rows: Sequence[BenchRow]) -> tuple[Verdict, ...]:
    """Return what the bars say of the standard comparison.

    Each is held against our dense step of the same group and shape, compiled or eager alike.
    """
    ours = {
        (row.shape, row.compiled): row
        for row in rows
        if (row.implementation, row.variant) == ("isoflop", DENSE)
    }
    found: list[Verdict] = []
    for row in rows:
        dense = ours.get((row.shape, row.compiled))
        if dense is None:
            continue
        promised = dense.flops_per_step / row.flops_per_step
        if row is dense:
            if not row.compiled or row.width < SHARE_FROM:
                continue
            claim = f"{row.name} reaches enough of the best product"
            measured, expected = row.of_peak, SHARE[row.dtype]
        elif row.implementation == "transformers":
            claim = f"{dense.name} is fast enough beside {row.name}"
            measured, expected = dense.speed_ratio / row.speed_ratio, OVER_PEER[row.compiled]
        elif (
            row.compiled
            and row.width >= ROUTED_FROM[0]
            and row.sequence_length >= ROUTED_FROM[1]
            and promised > 1
        ):
            claim = f"{row.name} gains at least {ROUTED_SHARE:g} of what its FLOPs promise"
            measured, expected = row.speed_ratio / dense.speed_ratio, ROUTED_SHARE * promised
        else:
            continue
        found.append(Verdict(group=row.group, claim=claim, measured=measured, expected=expected))
    return tuple(found)


SHOWN = (
    *("name", "parameters", "step_seconds", "achieved_flops", "of_peak"),
    *("speed_ratio", "low", "high", "rounds"),
)


def describe(report: BenchReport) -> list[str]:
    """Return a report as lines for a terminal: a table, and what the bars say."""
    ways = sorted({f"{row.dtype}, threads: {row.threads}" for row in report.rows})
    return report.told(
        f"{'; '.join(ways)}; speed ratio: step time of the group's first over this one, median of "
        "paired rounds and its quartiles; of peak: of the best product's FLOP/s",
        SHOWN,
        *(verdict.line for verdict in report.verdicts),
    )
