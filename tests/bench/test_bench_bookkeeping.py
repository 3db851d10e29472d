"""What is not training is told, and what is training is not counted in."""

import time
from pathlib import Path
from typing import Any

import pytest

from given import RECIPE, small_model, write_words
from isoflop import checkpoint
from isoflop.bench import bench_bookkeeping, describe_bookkeeping
from isoflop.config import DataConfig, RunConfig

SAVE_SECONDS = 0.4


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    corpus = write_words(tmp_path / "corpus", 30)
    return RunConfig(
        model=small_model(),
        data=DataConfig(corpus=str(corpus), sequence_length=32),
        recipe=RECIPE,
        steps=1_000_000,
        sequences_per_step=3,
    )


def test_saving_counts_and_training_does_not(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow_save(*args: Any, **more: Any) -> None:
        time.sleep(SAVE_SECONDS)
        save(*args, **more)

    save = checkpoint.save
    monkeypatch.setattr("isoflop.training.run.checkpoint.save", slow_save)
    started = time.perf_counter()
    report = bench_bookkeeping(
        [config], cache=tmp_path / "cache", folder=tmp_path / "runs", seconds=0.3, force=True
    )
    whole = time.perf_counter() - started
    (row,) = report.rows
    assert row.checkpoints == 1
    assert row.checkpoint_seconds >= SAVE_SECONDS
    assert SAVE_SECONDS <= row.bookkeeping_seconds <= whole - row.training_seconds
    assert row.training_seconds >= row.steps * row.step_seconds / 2 > 0
    whole = row.bookkeeping_seconds + row.training_seconds
    assert row.share == pytest.approx(row.bookkeeping_seconds / whole)
    assert row.share > 0.03
    assert row.checkpoint_bytes > 3 * 4 * row.parameters, "weights and two moments"
    assert f"{row.share:.4g}" in describe_bookkeeping(report)[-1]
