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
from one_tiny_run import tiny_run
from outcomes import assert_same_run

from given import flip
from isoflop.config import RunConfig
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, load_model, train

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


def interrupted_run(config: RunConfig, place: Path, cache: Path) -> RunFolder:
    """A run that was stopped after its third step, with checkpoints of the second and third."""
    run = RunFolder(place)
    stops = iter([False, False, True])
    with pytest.raises(Interrupted):
        train(config, run, cache=cache, threads=1, checkpoint_seconds=0, stop=lambda: next(stops))
    assert tuple(sorted(os.listdir(run.checkpoints))) == SAVED
    return run


def test_row_06_a_damaged_checkpoint_is_refused_and_the_one_before_used(tmp_path: Path) -> None:
    config, cache = tiny_run(tmp_path, steps=5), tmp_path / "cache"
    undisturbed = RunFolder(tmp_path / "undisturbed")
    train(config, undisturbed, cache=cache, threads=1)
    original = interrupted_run(config, tmp_path / "original", cache)
    for number, (name, damage) in enumerate(DAMAGES.items()):
        run = RunFolder(tmp_path / f"run {number}")
        shutil.copytree(original.path, run.path)
        damage(run.checkpoints / SAVED[1])
        with pytest.warns(UserWarning, match=rf"going back to step 2: .*{SAVED[1]}"):
            record = train(config, run, cache=cache, threads=1)
        assert record.state == "finished", name
        assert_same_run(run, undisturbed)


def test_with_no_good_checkpoint_a_run_stops(tmp_path: Path) -> None:
    config, cache = tiny_run(tmp_path, steps=5), tmp_path / "cache"
    run = interrupted_run(config, tmp_path / "run", cache)
    for name in SAVED:
        flip(run.checkpoints / name / "state.safetensors")
    before = (run.path / "metrics.jsonl").read_bytes()
    for use in (
        lambda: train(config, run, cache=cache, threads=1),
        lambda: load_model(run),
    ):
        with pytest.raises(ValueError, match=re.escape("is good")) as told:
            use()
        assert all(name in str(told.value) for name in SAVED)
        assert "remove the folder to start from zero" in str(told.value)
    assert run.state() == "interrupted"
    assert (run.path / "metrics.jsonl").read_bytes() == before
    shutil.rmtree(run.checkpoints)
    assert train(config, run, cache=cache, threads=1).state == "finished"
