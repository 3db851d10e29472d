"""SIGKILL at every point of a checkpoint commit.

Injected: strace kills a process at each system call of `checkpoint.save`, its pruning and what the
tensor library writes included. Expected: the previous checkpoint or the new one, never a part.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch
from strace_faults import strike

from given import ENVIRONMENT, RECIPE
from isoflop import checkpoint, storage
from isoflop.config import ModelConfig, RunConfig, WarmupStableDecay
from isoflop.runs import RunFolder, branched
from isoflop.training.state import branch, newest_checkpoint

STATE = {
    "weight": torch.arange(35, dtype=torch.bfloat16).reshape(5, 7),
    "count": torch.tensor(3, dtype=torch.int64),
}


def state_at(step: int) -> dict[str, torch.Tensor]:
    return {name: tensor + step for name, tensor in STATE.items()}


def save(folder: Path, step: int) -> None:
    checkpoint.save(folder / "checkpoint", step, state_at(step), {"seconds": step / 2})


def loaded(folder: Path) -> int:
    """The step that training would go on from, once everything of it is as it was saved."""
    found = checkpoint.latest(folder / "checkpoint")
    assert found is not None
    assert found.values == {"seconds": found.step / 2}
    expected = state_at(found.step)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], expected[name]) for name in expected)
    return found.step


def test_row_02_a_kill_at_any_call_leaves_the_old_checkpoint_or_the_new(disk: Path) -> None:
    template, place = disk / "template", disk / "killed"
    place.mkdir()
    for step in (10, 20):
        save(template, step)
    # What an earlier kill left, so that its removal is struck as well.
    (template / "checkpoint" / ".tmp-dead").mkdir()
    (template / "checkpoint" / ".tmp-dead" / "state.safetensors").write_bytes(b"half")

    killed, _ = strike(lambda folder: save(folder, 30), template, place, "signal=KILL")

    assert {child.code for child in killed} == {-signal.SIGKILL}
    # Three files, the folder and its parent are synced; files, then the folder, are renamed.
    struck = Counter(child.call for child in killed)
    assert struck["fsync"] == 5
    assert struck["rename"] + struck["renameat"] >= 3
    assert struck["write"] == 3
    found = []
    for child in killed:
        found.append(loaded(child.folder))
        names = os.listdir(child.folder / "checkpoint")
        for name in names:
            if not name.startswith(storage.TEMPORARY):
                storage.verify_folder(child.folder / "checkpoint" / name)
        save(child.folder, 40)
        assert loaded(child.folder) == 40
        left = sorted(os.listdir(child.folder / "checkpoint"))
        assert left == [f"step-{found[-1]:08}", "step-00000040"], (child.call, child.nth)
    assert set(found) == {20, 30}


@pytest.mark.slow
def test_a_kill_at_any_call_leaves_the_first_steps_of_another_run_or_none(disk: Path) -> None:
    """A run that was killed while it took them takes them at its next start, or has them."""
    recipe = RECIPE.model_copy(update={"schedule": WarmupStableDecay(), "warmup_steps": 1})
    model = ModelConfig(vocabulary=8, width=8, blocks=1, heads=1, head_width=8, hidden=8)
    short, long = (
        RunConfig(model=model, recipe=recipe, steps=steps, sequences_per_step=1) for steps in (3, 6)
    )
    assert (short.stable_steps, long.stable_steps) == (2, 5)
    template, place = disk / "template", disk / "killed"
    place.mkdir()
    parent, child = (RunFolder(template / run.run_id) for run in (short, long))
    for folder, run in ((parent, short), (child, long)):
        with folder.claim():
            folder.create(run)
            pinned = folder.pin(ENVIRONMENT, "0" * 64)
    checkpoint.save(parent.stable, 2, state_at(2), {"run_id": short.run_id, "seconds": 1.0})
    with parent.claim(), parent.open_metrics(0) as metrics:
        for step in (1, 2, 3):
            metrics.append({"step": step, "loss": 1.0 / step, "seconds": 0.5})

    def take(folder: Path) -> None:
        run = RunFolder(folder / long.run_id)
        with run.claim():
            branch(long, run, pinned)

    killed, _ = strike(take, template, place, "signal=KILL")

    assert {one.code for one in killed} == {-signal.SIGKILL}
    found = set()
    for one in killed:
        run = RunFolder(one.folder / long.run_id)
        before = newest_checkpoint(run, long.run_id)
        found.add(before is None)
        for _ in range(2):
            take(one.folder)
            saved, (rows, corrupt) = newest_checkpoint(run, long.run_id), run.read_metrics()
            assert saved is not None
            assert (saved.step, corrupt, [row["step"] for row in rows]) == (2, 0, [1, 2])
            assert branched(rows) == {"parent": short.run_id, "parent_step": 2}
            assert torch.equal(saved.tensors["weight"], state_at(2)["weight"])
    assert found == {True, False}
