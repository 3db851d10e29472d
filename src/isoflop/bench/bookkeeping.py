"""What it costs to write down: the share of training time that metrics and checkpoints take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from isoflop.bench.cases import standard_groups
from isoflop.bench.measured import Report, StepRow, Watch, conditions, settings_of
from isoflop.config import Precision, RunConfig
from isoflop.data import TokenStore, prepare
from isoflop.hardware import use_threads
from isoflop.runs import Progress, RunFolder
from isoflop.training import Interrupted, Run, compiles_by_default, environment

WARM_UP = 3
"""Steps before the time begins; the first two compile."""
ENDLESS = 10_000_000


class BookkeepingRow(StepRow):
    """One model trained for a while as `isoflop run` does, with default settings."""

    compiled: bool
    steps: int
    step_seconds: float
    """Median."""
    checkpoints: int
    checkpoint_bytes: int
    checkpoint_seconds: float
    """Median time to save one; the training between two is at least 50 times as long."""
    training_seconds: float
    """Time spent in steps."""
    bookkeeping_seconds: float
    """All else from the first timed step to the end."""
    share: float
    """Of bookkeeping in both."""


BookkeepingReport = Report[BookkeepingRow]


def standard_runs(precision: Precision = "bf16") -> tuple[RunConfig, ...]:
    """Return the dense models of the standard shapes."""
    return tuple(group[0].config for group in standard_groups(precision))


def bench_bookkeeping(
    configs: Sequence[RunConfig],
    *,
    cache: Path,
    folder: Path,
    seconds: float = 100.0,
    force: bool = False,
    watch: Watch = lambda _: None,
) -> BookkeepingReport:
    """Train each model for some time, one after the other, and tell what was not training.

    Args:
        configs: runs; they are not finished.
        cache: where prepared corpora lie.
        folder: where the runs may live; on the disk that is to be measured, and empty.
        seconds: time for each, in which a few checkpoints should be due.

    Raises:
        ValueError: the machine is busy.
    """
    found = conditions(force=force, threads=1)
    rows = []
    with use_threads(1):
        for index, config in enumerate(configs):
            watch(f"training width {config.model.width} for {seconds:.0f} s")
            store = prepare(config.data, cache)
            rows.append(_row(config, RunFolder(folder / str(index)), store, seconds))
    return BookkeepingReport(rows=tuple(rows), **found)


SHOWN = (
    *("parameters", "steps", "step_seconds", "checkpoints", "checkpoint_bytes"),
    *("checkpoint_seconds", "share"),
)


def describe_bookkeeping(report: BookkeepingReport) -> list[str]:
    """Return a report as lines for a terminal."""
    heading = "share of training time that metrics and checkpoints take"
    return report.told(heading, SHOWN)


class _Timed(Run):
    """A run that notes what its checkpoints take."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.saves: list[float] = []

    def _save(self, folder: Path | None = None) -> bool:
        started = time.perf_counter()
        saved = super()._save(folder)
        self.saves.append(time.perf_counter() - started)
        return saved


def _row(config: RunConfig, folder: RunFolder, store: TokenStore, seconds: float) -> BookkeepingRow:
    # So long that it neither ends nor looks at held-out text meanwhile.
    config = config.model_copy(update={"steps": ENDLESS})
    compiled = compiles_by_default(config)
    steps: list[float] = []
    began = 0.0

    def watch(progress: Progress) -> None:
        nonlocal began
        if progress.step == WARM_UP:
            began = time.perf_counter()
        elif began:
            steps.append(config.tokens_per_step / progress.tokens_per_second)

    with folder.claim():
        folder.create(config)
        folder.begin_attempt(0)
        run = _Timed(config, folder, store, environment("cpu", 1, compiled))
        with suppress(Interrupted):
            run.finish(None, lambda: 0 < began < time.perf_counter() - seconds, watch)
        whole = time.perf_counter() - began
        newest = max(folder.checkpoints.iterdir())
        return BookkeepingRow(
            **settings_of(config, threads=1),
            compiled=compiled,
            steps=len(steps),
            step_seconds=median(steps),
            checkpoints=len(run.saves),
            checkpoint_bytes=sum(file.stat().st_size for file in newest.iterdir()),
            checkpoint_seconds=median(run.saves),
            training_seconds=sum(steps),
            bookkeeping_seconds=whole - sum(steps),
            share=1 - sum(steps) / whole,
        )
