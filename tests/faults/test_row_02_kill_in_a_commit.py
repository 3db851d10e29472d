"""SIGKILL at every point of a checkpoint commit.

Injected: strace kills a process at each system call of `checkpoint.save`, its pruning and what the
tensor library writes included. Expected: the previous checkpoint or the new one, never a part.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import torch
from strace_faults import strike

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
