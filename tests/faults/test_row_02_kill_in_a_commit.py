"""SIGKILL at every point of a checkpoint commit.

Injected: a process kills itself before each call of `checkpoint.save` that changes the disk, those
of its pruning included. Expected: the previous checkpoint or the new one, never a part.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import torch
from failpoints import killed

from isoflop import checkpoint, storage

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
    template = disk / "template"
    for step in (10, 20):
        save(template, step)
    # What an earlier kill left, so that its removal is struck as well.
    (template / "checkpoint" / ".tmp-dead").mkdir()
    (template / "checkpoint" / ".tmp-dead" / "state.safetensors").write_bytes(b"half")

    found = []
    for nth in itertools.count():
        folder = disk / str(nth)
        shutil.copytree(template, folder)
        if not killed(lambda folder=folder: save(folder, 30), nth):
            break
        found.append(loaded(folder))
        for name in os.listdir(folder / "checkpoint"):
            if not name.startswith(storage.TEMPORARY):
                storage.verify_folder(folder / "checkpoint" / name)
        save(folder, 40)
        assert loaded(folder) == 40
        left = sorted(os.listdir(folder / "checkpoint"))
        assert left == [f"step-{found[-1]:08}", "step-00000040"], nth
    # Three files, their folder and its parent are synced; files, then the folder, are renamed.
    assert len(found) > 15
    assert set(found) == {20, 30}
