"""Stopping, killing and going on give bitwise the run that was never disturbed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from told_apart import told_apart

from isoflop import checkpoint
from isoflop.config import (
    AdamW,
    BlockAttention,
    Depth,
    EveryToken,
    Muon,
    Optimiser,
    RandomK,
    RunConfig,
    TopK,
)
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, Trainer, train
from outcomes import assert_same_run

DEPTHS = [EveryToken(), TopK(capacity=0.25, router_bce=0.01), RandomK(capacity=0.5)]
MakeRun = Callable[..., RunConfig]


def stop_after(steps: int) -> Callable[[], bool]:
    """Return a `stop` that says so after so many steps of one attempt."""
    countdown = iter(range(steps - 1, -1, -1))
    return lambda: next(countdown) == 0


@pytest.mark.parametrize(
    ("depth", "optimiser"),
    [*((depth, AdamW()) for depth in DEPTHS), (TopK(capacity=0.5), Muon())],
    ids=lambda one: str(one.kind),
)
def test_stopping_again_and_again_changes_nothing(
    make_run: MakeRun, cache: Path, tmp_path: Path, depth: Depth, optimiser: Optimiser
) -> None:
    config = make_run(depth, optimiser=optimiser)
    undisturbed, stopped = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    train(config, undisturbed, cache=cache, threads=1, compiled=False)
    for steps, reached in ((1, 1), (4, 5), (6, 11)):
        with pytest.raises(Interrupted, match=f"stopped at step {reached} of 12"):
            train(config, stopped, cache=cache, threads=1, stop=stop_after(steps))
        assert stopped.state() == "preempted"
    record = train(config, stopped, cache=cache, threads=1)
    assert record.state == stopped.state() == "finished"
    assert record.attempts == 4
    assert_same_run(stopped, undisturbed)


@pytest.mark.parametrize("asked", [True, False])
def test_a_compiler_that_a_signal_to_stop_ends_is_no_failure(
    make_run: MakeRun, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    error = type("CompileError", (RuntimeError,), {"__module__": "torch._inductor.exc"})(
        "g++ ended"
    )
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", Mock(side_effect=error))
        with pytest.raises(Interrupted if asked else type(error)):
            train(make_run(), folder, cache=cache, threads=1, compiled=False, stop=lambda: asked)
    assert folder.record() is None
    assert train(make_run(), folder, cache=cache, threads=1).state == "finished"


def test_stopping_changes_nothing_where_a_step_has_most_parts(
    make_run: MakeRun, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions told apart; sequences one by one; blocks computed again; logits in chunks."""
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "logits", 256 * 7)
    config = told_apart(make_run(DEPTHS[1], steps=6, gradient_clip=0.05))
    attention = BlockAttention(block_size=4, top_k=2, full_from=0.5, key_convolution=3)
    model = config.model.model_copy(update={"attention": attention})
    config = config.model_copy(update={"model": model})
    undisturbed, stopped = RunFolder(tmp_path / "a"), RunFolder(tmp_path / "b")
    how: Any = {"micro_batch_tokens": 16, "recompute": "full", "compiled": False}
    record = train(config, undisturbed, cache=cache, threads=1, **how)
    assert (record.environment.micro_batch, record.environment.recompute) == (1, "full")
    assert record.evaluations[0].spans
    assert all(row["gradient_norm"] > 0.5 for row in undisturbed.read_metrics()[0])
    with pytest.raises(Interrupted):
        train(config, stopped, cache=cache, threads=1, stop=stop_after(2), **how)
    train(config, stopped, cache=cache, threads=1)
    assert_same_run(stopped, undisturbed)


@pytest.mark.parametrize(
    ("step_seconds", "save_seconds", "wanted", "saved_at"),
    [
        (10.0, 0.125, None, [4, 8, 12]),
        (10.0, 1.0, None, [4, 10, 12]),
        (10.0, 1.1, None, [4, 11, 12]),
        (20.0, 1.0, None, [2, 5, 8, 10, 12]),
        (10.0, 1.0, 5.0, list(range(1, 13))),
    ],
    ids=["quick", "slow", "slower", "slow for longer", "as told"],
)
def test_saving_takes_a_small_share_of_the_time(
    make_run: MakeRun,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step_seconds: float,
    save_seconds: float,
    wanted: float | None,
    saved_at: list[int],
) -> None:
    """Two seconds of saving, of two checkpoints, are 2% of 100 seconds."""
    now = 0.0
    saved: list[int] = []

    def slow_save(folder: Path, step: int, *args: Any, **more: Any) -> None:
        nonlocal now
        now += save_seconds
        saved.append(step)
        save(folder, step, *args, **more)

    def work(_: Any) -> None:
        nonlocal now
        now += step_seconds

    save = checkpoint.save
    monkeypatch.setattr("isoflop.training.run.time.monotonic", lambda: now)
    monkeypatch.setattr("isoflop.training.run.checkpoint.save", slow_save)
    config = make_run(DEPTHS[0])
    assert config.steps == 12
    run = RunFolder(tmp_path / "run")
    train(config, run, cache=cache, threads=1, checkpoint_seconds=wanted, watch=work)
    assert saved == saved_at


def test_stopping_at_the_last_step_is_finishing(
    make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    record = train(make_run(), folder, cache=cache, threads=1, stop=stop_after(12))
    assert record.state == "finished"


def test_a_finished_run_is_not_trained_again(
    make_run: MakeRun, cache: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    record = train(make_run(), folder, cache=cache, threads=1)

    def never(_: Any) -> None:
        raise AssertionError("a step was made")

    assert train(make_run(), folder, cache=cache, threads=1, watch=never) == record
