#!/usr/bin/env python3
"""What it costs to write down: the share of training time that metrics and checkpoints take.

    tools/bookkeeping.py SECONDS > results/bench/bookkeeping.json

The dense models of the standard shapes are trained for so long each, as `isoflop run` does, one
thread; checkpoints come every half minute. The runs live under `runs/` and are thrown away.
"""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from isoflop.bench.cases import standard_groups
from isoflop.bench.measured import Report, StepRow, conditions, settings_of
from isoflop.config import RunConfig
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


if __name__ == "__main__":
    Path("runs").mkdir(exist_ok=True)
    found, rows = conditions(force=False, threads=1), []
    with use_threads(1), TemporaryDirectory(dir="runs", prefix=".tmp-") as folder:
        for group in standard_groups("bf16"):
            config = group[0].config
            store, run = prepare(config.data, Path("cache")), RunFolder(Path(folder, config.run_id))
            rows.append(_row(config, run, store, float(sys.argv[1])))
    print(BookkeepingReport(rows=tuple(rows), **found).model_dump_json(indent=2))
