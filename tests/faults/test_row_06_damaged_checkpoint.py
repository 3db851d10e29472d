"""A flipped bit, a truncated, missing, empty or extra file in a checkpoint.

Injected: the newest checkpoint of an interrupted run is damaged in each way, then all are.
Expected: the run goes on from the one before, says so, and ends as if nothing had happened; where
none is good it stops and never starts from zero unasked.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from one_tiny_run import Tiny

from given import flip
from isoflop.runs import RunFolder
from isoflop.training import load_model

SAVED = ("step-00000002", "step-00000003")


def swap(folder: Path) -> None:
    """The files of another step, each of them whole."""
    for path in (folder.parent / SAVED[0]).iterdir():
        shutil.copy(path, folder)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit in tensors": lambda folder: flip(folder / "state.safetensors"),
    "flipped bit in values": lambda folder: flip(folder / "values.json"),
    "flipped bit in the manifest": lambda folder: flip(folder / "manifest.json"),
    "truncated": lambda folder: os.truncate(folder / "state.safetensors", 1000),
    "missing": lambda folder: (folder / "state.safetensors").unlink(),
    "missing manifest": lambda folder: (folder / "manifest.json").unlink(),
    "empty": lambda folder: os.truncate(folder / "values.json", 0),
    "extra": lambda folder: (folder / "state.bin").write_bytes(b""),
    "link": lambda folder: (
        shutil.move(folder / "values.json", folder.parent / "elsewhere"),
        (folder / "values.json").symlink_to(folder.parent / "elsewhere"),
    ),
    "emptied": lambda folder: [path.unlink() for path in folder.iterdir()],
    "of another step": swap,
}


def interrupted_run(tiny: Tiny) -> RunFolder:
    """A run that was stopped after its third step, with checkpoints of the second and third."""
    run = RunFolder(tiny.place / "original")
    tiny.stop(run, 3, checkpoint_seconds=0)
    assert tuple(sorted(os.listdir(run.checkpoints))) == SAVED
    return run


def test_row_06_a_damaged_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path) -> None:
    tiny = Tiny.of(tmp_path, steps=5)
    original = interrupted_run(tiny)
    for number, (name, damage) in enumerate(DAMAGES.items()):
        run = RunFolder(tmp_path / f"run {number}")
        shutil.copytree(original.path, run.path)
        damage(run.checkpoints / SAVED[1])
        with pytest.warns(UserWarning, match=rf"going back to step 2: .*{SAVED[1]}"):
            record = tiny.train(run)
        assert record.state == "finished", name
        tiny.assert_undisturbed(run)


def test_with_no_good_checkpoint_a_run_stops(tmp_path: Path) -> None:
    tiny = Tiny.of(tmp_path, steps=5)
    run = interrupted_run(tiny)
    for name in SAVED:
        flip(run.checkpoints / name / "state.safetensors")
    before = (run.path / "metrics.jsonl").read_bytes()
    for use in (tiny.train, load_model):
        with pytest.raises(ValueError, match=re.escape("is good")) as told:
            use(run)
        assert all(name in str(told.value) for name in SAVED)
        assert "remove the folder to start from zero" in str(told.value)
    assert run.state() == "interrupted"
    assert (run.path / "metrics.jsonl").read_bytes() == before
    shutil.rmtree(run.checkpoints)
    assert tiny.train(run).state == "finished"
