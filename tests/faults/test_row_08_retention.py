"""Retention with shuffled modification times, or in a folder that was used before.

Injected: times of checkpoints are shuffled after every save; checkpoints of later steps and of
another run lie in the folder. Expected: the newest valid checkpoint, by step, is never deleted, and
no run goes on from another run's state.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import torch
from one_tiny_run import Tiny

from given import flip
from isoflop import checkpoint
from isoflop.runs import RunFolder
from isoflop.training import load_model


@pytest.mark.filterwarnings("ignore:damaged checkpoint")
@pytest.mark.parametrize("seed", range(12))
def test_row_08_the_newest_valid_checkpoint_is_never_deleted(disk: Path, seed: int) -> None:
    chance = random.Random(seed)
    newest = -1
    # Steps in any order, as when training went back to an older one, or the folder was in use.
    for step in chance.choices(range(30), k=12):
        keep = chance.choice([1, 2, 3])
        checkpoint.save(disk, step, {"x": torch.tensor(step)}, {}, keep=keep)
        names = sorted(os.listdir(disk))
        assert any(name.startswith(f"step-{step:08}") for name in names)
        assert len(names) <= keep + 1
        newest = max(newest, step)
        found = checkpoint.latest(disk)
        assert found is not None
        assert (found.step, int(found.tensors["x"])) == (newest, newest)
        for name in names:
            # Times behind, at and far ahead of the truth.
            moment = chance.choice([0, 1e9, 4e9]) + chance.random()
            os.utime(disk / name, (moment, moment))
        if len(names) > 1 and chance.random() < 0.3:
            flip(disk / names[-1] / "state.safetensors")
            left = checkpoint.latest(disk)
            assert left is not None
            newest = left.step


def test_a_run_never_goes_on_from_the_state_of_another(tmp_path: Path) -> None:
    tiny, other = Tiny.of(tmp_path), Tiny.of(tmp_path, seed=1)
    ids = f"{other.config.run_id}, expected {tiny.config.run_id}"
    used, reused = RunFolder(tmp_path / "used"), RunFolder(tmp_path / "reused")
    other.train(used)
    # Another run's folder as a whole is refused, and so are its checkpoints in a new one.
    with pytest.raises(ValueError, match=f"holds run {ids}"):
        tiny.train(used)
    reused.create(tiny.config)
    shutil.copytree(used.checkpoints, reused.checkpoints)
    expected = f"checkpoints of run {ids}; remove the folder"
    for use in (tiny.train, load_model):
        with pytest.raises(ValueError, match=expected):
            use(reused)
    assert reused.record() is None
    assert os.listdir(reused.checkpoints) == os.listdir(used.checkpoints)
