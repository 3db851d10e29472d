"""Fits are timed as a user runs them, on tables of a known law."""

import subprocess

import numpy as np
import pandas as pd
import pytest

from isoflop.bench import bench_fit, describe_fit, fits
from isoflop.bench.fits import law_table
from isoflop.fit import run_table


def test_tables_are_runs_of_the_law_at_28_budgets_of_every_variant() -> None:
    made = law_table(250, 3)
    assert len(made) == 250
    shared = made.groupby("variant")["budget_flops"].nunique()
    assert shared.to_dict() == {f"variant {one}": 28 for one in range(3)}
    np.testing.assert_allclose(made["budget_flops"], 6 * made["parameters"] * made["tokens"])
    off = np.log(made["loss"] / fits.LAW.loss(made["parameters"], made["tokens"]))
    assert off.std() == pytest.approx(fits.NOISE, rel=0.2)
    assert len(run_table(made).table) == 250


@pytest.mark.parametrize(("rows", "variants"), [(27, 1), (83, 3), (100, 0)])
def test_too_few_rows_and_rounds_are_told(rows: int, variants: int) -> None:
    with pytest.raises(ValueError, match="expected at least 28 for each"):
        law_table(rows, variants)
    with pytest.raises(ValueError, match="rounds is 0"):
        bench_fit(rounds=0, force=True)


def test_rounds_take_turns_and_the_median_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([3.0, 30.0, 1.0, 10.0, 2.0, 20.0])
    asked: list[tuple[int, int]] = []

    def timed(path, resamples):
        asked.append((len(pd.read_csv(path)), resamples))
        return next(times)

    monkeypatch.setattr(fits, "_seconds", timed)
    report = bench_fit((250, 580), (1,), resamples=40, rounds=3, force=True)
    assert asked == [(250, 40), (580, 40)] * 3
    assert [(row.seconds, row.rounds) for row in report.rows] == [
        (2.0, (3.0, 1.0, 2.0)),
        (20.0, (30.0, 10.0, 20.0)),
    ]
    told = describe_fit(report)
    assert report.machine in told[-4]
    assert told[-2].split() == ["250", "1", "28", "40", "2"]


def test_a_fit_that_fails_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed(*arguments, **more):
        return subprocess.CompletedProcess(arguments, 2, "", "isoflop: no such table\n")

    monkeypatch.setattr(fits.subprocess, "run", failed)
    with pytest.raises(ValueError, match="isoflop fit ended with 2: isoflop: no such table"):
        bench_fit((30,), (1,), rounds=1, force=True)
