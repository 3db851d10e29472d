"""What it costs to write down: the share of training time that metrics and checkpoints take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from isoflop.bench.cases import DENSE, standard_groups
from isoflop.bench.measured import Report, Watch, conditions
from isoflop.config import Frozen, Precision, RunConfig
from isoflop.costs import parameters
from isoflop.data import TokenStore, prepare
from isoflop.hardware import use_threads
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, Run, StepResult, compiles_by_default, environment

SHARE_PROMISED = 0.03
WARM_UP = 3
"""Steps before the time begins; the first two compile."""
ENDLESS = 10_000_000


class BookkeepingRow(Frozen):
    """One model trained for a while as `isoflop run` does, with default settings."""

    parameters: int
    width: int
    blocks: int
    dtype: Precision
    threads: int
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
    """All else between the first step and the end of the last but looks at held-out text."""
    share: float
    """Of bookkeeping in both."""


BookkeepingReport = Report[BookkeepingRow]


def standard_runs(precision: Precision = "bf16") -> tuple[RunConfig, ...]:
    """Return the dense models of the standard shapes, as runs without an end."""
    return tuple(
        case.config.model_copy(update={"steps": ENDLESS})
        for group in standard_groups(precision)
        for case in group[:1]
        if case.variant == DENSE
    )


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
        ValueError: the machine is busy, or the folder is not empty.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; expected a folder for runs that are thrown away")
    found = conditions(force=force, threads=1)
    rows = []
    with use_threads(1):
        for index, config in enumerate(configs):
            watch(f"training {parameters(config.model).total:,} parameters for {seconds:.0f} s")
            store = prepare(config.data, cache)
            rows.append(_row(config, RunFolder(folder / str(index)), store, seconds))
    return BookkeepingReport(rows=tuple(rows), **found)


def describe_bookkeeping(report: BookkeepingReport) -> list[str]:
    """Return what was measured, a line for each model."""
    lines = report.warnings
    for row in report.rows:
        kept = "holds" if row.share < SHARE_PROMISED else "does not hold"
        lines.append(
            f"{row.parameters:,} parameters: {row.share:.2%} of {row.steps:,} steps' time "
            f"({1000 * row.step_seconds:.1f} ms each) and {row.checkpoints} checkpoints "
            f"({1000 * row.checkpoint_seconds:.0f} ms, {row.checkpoint_bytes / 2**20:.1f} MiB "
            f"each); under {SHARE_PROMISED:.0%} {kept}"
        )
    return lines


class _Timed(Run):
    """A run that notes what its steps, saves and looks at held-out text take."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.began: float | None = None
        self.steps: list[float] = []
        self.saves: list[float] = []
        self.looks: list[float] = []

    def _make_step(self, index: int) -> None:
        if self.began is None:
            for _ in range(WARM_UP):
                super()._make_step(index)
            self._under_way.clear()
            self.began = time.perf_counter()
        super()._make_step(index)

    def _row(self, result: StepResult, seconds: float) -> dict[str, Any]:
        self.steps.append(seconds)
        return super()._row(result, seconds)

    def _save(self, folder: Path | None = None) -> bool:
        with _noted(self.saves):
            return super()._save(folder)

    def _validation(self) -> dict[str, Any]:
        with _noted(self.looks):
            return super()._validation()


@contextmanager
def _noted(times: list[float]) -> Iterator[None]:
    started = time.perf_counter()
    yield
    times.append(time.perf_counter() - started)


def _row(config: RunConfig, folder: RunFolder, store: TokenStore, seconds: float) -> BookkeepingRow:
    compiled = compiles_by_default(config)
    with folder.claim():
        folder.create(config)
        folder.begin_attempt(0)
        run = _Timed(config, folder, store, environment("cpu", 1, compiled))

        def over() -> bool:
            return run.began is not None and time.perf_counter() - run.began > seconds

        try:
            run.finish(None, over, lambda _: None)
        except Interrupted:
            pass
        else:
            raise ValueError(
                f"run {config.run_id} is over before {seconds:.0f} seconds; measure a longer one"
            )
        assert run.began is not None
        whole = time.perf_counter() - run.began
        newest = max(folder.checkpoints.iterdir())
        training = sum(run.steps)
        bookkeeping = whole - training - sum(run.looks)
        return BookkeepingRow(
            parameters=parameters(config.model).total,
            width=config.model.width,
            blocks=config.model.blocks,
            dtype=config.recipe.precision,
            threads=1,
            compiled=compiled,
            steps=len(run.steps),
            step_seconds=median(run.steps),
            checkpoints=len(run.saves),
            checkpoint_bytes=sum(file.stat().st_size for file in newest.iterdir()),
            checkpoint_seconds=median(run.saves),
            training_seconds=training,
            bookkeeping_seconds=bookkeeping,
            share=bookkeeping / (training + bookkeeping),
        )
