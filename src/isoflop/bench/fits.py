"""How long `isoflop fit` takes: a whole process on a table that a known law made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from isoflop.bench.measured import Report, Watch, conditions, in_turns, mean_seconds
from isoflop.config import Frozen
from isoflop.fit.surfaces.surface import Surface

LAW = Surface(E=1.8, A=480.0, B=2100.0, alpha=0.35, beta=0.37)
NOISE = 0.005
"""Standard deviation of a run's log loss."""
BUDGETS = 28
LOWEST_FLOPS, HIGHEST_FLOPS = 1e17, 1e21
LARGEST_RATIO = 5.0
"""Sizes at a budget are within this factor of the root of C / 120."""
ROWS = (250, 580)
VARIANTS = (1, 3)
ROUNDS = 3


class FitRow(Frozen):
    """One table fitted by `isoflop fit`, start of Python included."""

    rows: int
    variants: int
    budgets: int
    resamples: int
    seconds: float
    """Median over rounds."""
    rounds: tuple[float, ...]


FitReport = Report[FitRow]


def law_table(rows: int, variants: int) -> pd.DataFrame:
    """Return runs of `LAW` at `BUDGETS` budgets, those of every variant at each.

    Raises:
        ValueError: there are fewer rows than budgets for every variant.
    """
    if variants < 1 or rows < BUDGETS * variants:
        raise ValueError(
            f"{rows} rows of {variants} variants; expected at least {BUDGETS} for each of one or "
            "more variants"
        )
    generator, number = np.random.default_rng(0), np.arange(rows)
    flops = np.geomspace(LOWEST_FLOPS, HIGHEST_FLOPS, BUDGETS)[number % BUDGETS]
    n = np.sqrt(flops / 120) * LARGEST_RATIO ** generator.uniform(-1, 1, rows)
    d = flops / (6 * n)
    return pd.DataFrame(
        {
            "variant": [f"variant {one}" for one in number // BUDGETS % variants],
            "budget_flops": flops,
            "parameters": n,
            "tokens": d,
            "loss": LAW.loss(n, d) * np.exp(NOISE * generator.standard_normal(rows)),
        }
    )


def bench_fit(
    rows: Sequence[int] = ROWS,
    variants: Sequence[int] = VARIANTS,
    *,
    resamples: int = 1000,
    rounds: int = ROUNDS,
    force: bool = False,
    watch: Watch = lambda _: None,
) -> FitReport:
    """Time `isoflop fit` on tables of a known law, each several times, taking turns.

    Args:
        rows: runs of each table.
        variants: that these are shared among.
        resamples: copies of the runs behind each interval.
        rounds: how often each is timed.

    Raises:
        ValueError: the machine is busy, a number is too small, or a fit fails.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; expected at least 1")
    tables = {(size, count): law_table(size, count) for size in rows for count in variants}
    found = conditions(force=force, threads=1)
    with TemporaryDirectory() as folder:
        turns = []
        for (size, count), table in tables.items():
            path = Path(folder) / f"{size}-{count}.csv"
            table.to_csv(path, index=False)
            turns.append(partial(_seconds, path, resamples))
        watch(f"{rounds} rounds of {len(tables)} tables")
        seconds = in_turns(turns, seconds=0, rounds=rounds)
    made = [
        FitRow(
            rows=size,
            variants=count,
            budgets=BUDGETS,
            resamples=resamples,
            seconds=median(taken),
            rounds=tuple(taken),
        )
        for (size, count), taken in zip(tables, seconds, strict=True)
    ]
    return FitReport(rows=tuple(made), **found)


SHOWN = ("rows", "variants", "budgets", "resamples", "seconds")


def describe_fit(report: FitReport) -> list[str]:
    """Return a report as lines for a terminal."""
    heading = f"isoflop fit, whole process, on {report.machine}"
    return report.told(heading, SHOWN)


def _seconds(path: Path, resamples: int) -> float:
    script = "import sys; from isoflop.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, "fit", str(path), "--resamples", str(resamples)]

    def fit() -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ValueError(f"isoflop fit ended with {done.returncode}: {last}")

    return mean_seconds(fit)
