"""Scaling efficiency of several ranks, measured on two."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from given import FP32, small_model
from isoflop import storage
from isoflop.bench.ranks import bench_ranks, describe_ranks
from isoflop.config import DataConfig, RunConfig
from isoflop.training import joined
from several_ranks import run_ranks


def measure(out: Path) -> None:
    config = RunConfig(
        model=small_model(),
        data=DataConfig(corpus="nowhere", sequence_length=16),
        recipe=FP32,
        steps=1,
        sequences_per_step=4,
    )
    with joined("cpu", 60) as ranks:
        report = bench_ranks([config], ranks, threads=1, force=True, seconds=0)
        if report is not None:
            told = {**report.model_dump(mode="json"), "lines": describe_ranks(report)}
            storage.write_json(out, told)


@pytest.mark.slow
def test_a_step_is_measured_by_one_rank_and_by_two(tmp_path: Path) -> None:
    run_ranks(2, measure, tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    (row,) = found["rows"]
    assert (row["ranks"], row["rounds"]) == (2, 6)
    assert 0 < row["low"] <= row["speed_ratio"] <= row["high"]
    assert "2 ranks, 1 threads each, cpu, fp32" in found["lines"][-4]
