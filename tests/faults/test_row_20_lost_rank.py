"""Row 20. Fault: one of two ranks is killed, hangs, runs out of memory, or is asked to stop.

Injected: SIGKILL, SIGSTOP, a MemoryError, SIGUSR1 and SIGTERM in rank 1 in its fourth step.
Expected: the other ends, at the latest after --rank-timeout; the checkpoint before is whole,
nothing partial is there, and the run goes on from it. Asked to stop, all do, with one checkpoint.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from one_tiny_run import Tiny
from processes import PATIENCE_SECONDS, command, second_rank, wait_for
from ranked import PREEMPTED, assert_almost_same_run, train_ranked

from isoflop import storage
from isoflop.checkpoint import newest_step
from isoflop.runs import RunFolder, RunStore
from outcomes import assert_same_run
from several_ranks import ended, start_ranks

if TYPE_CHECKING:
    from torch import Tensor

    from isoflop.training.step import StepResult, Trainer

TIMEOUT_SECONDS = 5.0


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGSTOP, id="hung", marks=pytest.mark.slow),
        pytest.param(None, id="out of memory", marks=pytest.mark.slow),
    ],
)
def test_row_20_a_lost_rank_ends_the_others(tmp_path: Path, number: int | None) -> None:
    tiny, folder = Tiny.of(tmp_path, steps=8), RunFolder(tmp_path / "lost")
    lead, lost = start_ranks(2, train_ranked, tiny, folder.path, None, (4, number), TIMEOUT_SECONDS)
    assert ended([lead]) == [1]
    if number is not None:
        lost.kill()
    assert ended([lost]) == [1 if number is None else -signal.SIGKILL]
    assert folder.state() == "interrupted"
    (attempt,) = folder.attempts_made()
    assert attempt.reason is not None
    assert "rank 0 of 2 lost another" in attempt.reason
    assert newest_step(folder.checkpoints) == 3
    for saved in folder.checkpoints.iterdir():
        storage.verify_folder(saved)
    assert not list(folder.path.rglob(storage.TEMPORARY + "*"))
    assert ended(start_ranks(2, train_ranked, tiny, folder.path)) == [0, 0]
    tiny.train(tmp_path / "undisturbed")
    assert_almost_same_run(folder, RunFolder(tmp_path / "undisturbed"))


def train_and_be_stopped(folder: Path, number: int) -> int:
    """Run `isoflop train`, in whose fourth step rank 1 is sent a signal."""
    from isoflop.training.step import Trainer

    step = Trainer.step

    def step_signalled(trainer: Trainer, tokens: Tensor, index: int, rate: float) -> StepResult:
        if index == 3 and trainer.ranks.rank == 1:
            os.kill(os.getpid(), number)
        return step(trainer, tokens, index, rate)

    Trainer.step = step_signalled
    return command(folder, "train", "run.json", "--threads", "1", "--ranks", "2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_row_20_a_signal_to_one_rank_stops_all_with_a_checkpoint(
    tmp_path: Path, number: int
) -> None:
    tiny, said = Tiny.of(tmp_path, steps=8), tmp_path / "said.txt"
    (tmp_path / "run.json").write_text(tiny.config.model_dump_json())
    ranks = start_ranks(2, train_and_be_stopped, tmp_path, number, said=said)
    assert ended(ranks) == [PREEMPTED] * 2
    folder = RunStore(tmp_path / "runs" / "single").folder(tiny.config.run_id)
    assert folder.state() == "preempted"
    assert newest_step(folder.checkpoints) == 4
    hint = "isoflop: terminated; go on with: isoflop train run.json --threads 1 --ranks 2"
    assert said.read_text().splitlines()[-1] == hint
    assert said.read_text().count("isoflop") == 2


@pytest.mark.slow
def test_row_20_the_command_starts_all_again_after_a_lost_rank(tmp_path: Path) -> None:
    tiny, said = Tiny.of(tmp_path, steps=400), tmp_path / "said.txt"
    (tmp_path / "run.json").write_text(tiny.config.model_dump_json())
    folder = RunStore(tmp_path / "runs" / "single").folder(tiny.config.run_id)
    train = [sys.executable, "-m", "isoflop", "train", "run.json", "--threads", "1", "--ranks", "2"]
    with said.open("wb") as told, subprocess.Popen(train, cwd=tmp_path, stderr=told) as running:
        wait_for(lambda: folder.path.exists() and len(folder.read_metrics()[0]) > 20)
        os.kill(second_rank("run.json"), signal.SIGKILL)
        assert running.wait(PATIENCE_SECONDS) == 0, said.read_text()
    again = "a rank ended by SIGKILL; starting all again from the newest checkpoint"
    assert said.read_text().count(again) == 1
    assert len(folder.attempts_made()) == 2
    right = tmp_path / "right"
    right.mkdir()
    (right / "run.json").write_bytes((tmp_path / "run.json").read_bytes())
    subprocess.run(train, cwd=right, check=True)
    assert_same_run(folder, RunStore(right / "runs" / "single").folder(tiny.config.run_id))
