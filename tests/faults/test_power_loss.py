"""A power cut at any moment of what storage does, of a checkpoint and of a run's record.

Expected: the old or the new, never a part, and what was reported as committed is there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from one_tiny_run import Tiny
from power_loss import every_disk, recorded

from isoflop import checkpoint, storage
from isoflop.config import RunConfig, RunRecord
from isoflop.runs import RunFolder, read_metrics
from isoflop.storage import JsonLines, read_json_lines

STATE = {"weight": torch.arange(6.0)}


@pytest.fixture
def root(disk: Path) -> Path:
    folder = disk / "root"
    folder.mkdir()
    return folder


@contextmanager
def killed_before_it_is_durable(path: Path) -> Iterator[None]:
    """The process dies before it syncs the folder that it renamed `path` into."""

    class Killed(BaseException):
        pass

    fsync = os.fsync

    def dying(descriptor: int) -> None:
        if path.exists() and os.path.samestat(os.fstat(descriptor), path.parent.stat()):
            raise Killed
        fsync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", dying)
        with pytest.raises(Killed):
            yield


def test_a_file_is_the_old_or_the_new(root: Path, disk: Path) -> None:
    path = root / "deep" / "er" / "file"
    with recorded(root) as recorder:
        for content in (b"old", b"new", b"newest"):
            storage.write_bytes(path, content)
            recorder.committed = content
    order = [None, b"old", b"new", b"newest"]
    disks = list(every_disk(recorder, disk / "disks"))
    assert len(disks) > 10
    for left, committed in disks:
        found = left / "deep" / "er" / "file"
        content = found.read_bytes() if found.exists() else None
        assert order.index(content) >= order.index(committed)


def test_a_folder_is_there_as_a_whole_or_not(root: Path, disk: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "a").write_bytes(b"1" * 100)
        (folder / "b").write_bytes(b"2")

    with recorded(root) as recorder:
        for name in ("first", "second"):
            storage.commit_folder(root / "in" / name, write)
            recorder.committed = name
        storage.discard(root / "in" / "first")
    for left, committed in every_disk(recorder, disk / "disks"):
        whole = set()
        if (left / "in").exists():
            whole = {p.name for p in (left / "in").iterdir() if not p.name.startswith(".tmp-")}
        for name in whole - {"first"} if committed == "second" else whole:
            storage.verify_folder(left / "in" / name)
        assert committed in whole or committed in (None, "first")
        # Only its removal may take the first one away.
        assert "first" in whole or committed in (None, "second")


def test_synced_lines_are_there_and_no_line_is_half(root: Path, disk: Path) -> None:
    path = root / "lines.jsonl"
    with recorded(root) as recorder, JsonLines(path) as lines:
        recorder.committed = 0
        for number in range(1, 7):
            lines.append({"n": number})
            if number % 2 == 0:
                lines.sync()
                recorder.committed = number
    for left, committed in every_disk(recorder, disk / "disks"):
        rows, corrupt = ([], 0)
        if (left / "lines.jsonl").exists():
            rows, corrupt = read_json_lines(left / "lines.jsonl")
        assert committed in (None, 0) or (left / "lines.jsonl").exists()
        assert corrupt == 0
        assert [row["n"] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= (committed or 0)


def test_the_checkpoint_reported_last_or_a_later_one_is_loaded(root: Path, disk: Path) -> None:
    with recorded(root) as recorder:
        for step in (1, 2, 3, 4):
            checkpoint.save(root / "run" / "checkpoint", step, STATE, {"at": step}, keep=2)
            recorder.committed = step
    found = []
    for left, committed in every_disk(recorder, disk / "disks"):
        saved = checkpoint.latest(left / "run" / "checkpoint")
        found.append(saved.step if saved else 0)
        assert found[-1] >= (committed or 0)
        assert saved is None or saved.values == {"at": saved.step}
        assert saved is None or torch.equal(saved.tensors["weight"], STATE["weight"])
    assert set(found) == {0, 1, 2, 3, 4}


def check_run(left: RunFolder, config: RunConfig, committed: RunRecord | None) -> int:
    """Hold that a run can go on from what is left of it; return the step it goes on from."""
    if not left.path.exists() or left.state() == "pending":
        assert committed is None
        return 0
    record = left.record()
    assert record == committed or committed is None
    saved = checkpoint.latest(left.checkpoints)
    step = saved.step if saved else 0
    rows, corrupt = read_metrics(left.path / "metrics.jsonl")
    assert corrupt == 0
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= step
    if record is not None:
        assert step == config.steps
    return step


def test_a_run_loses_nothing_it_reported(
    root: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine that lost power comes back after its leases ran out.
    monkeypatch.setattr("isoflop.runs.claim.LEASE_SECONDS", -1.0)
    monkeypatch.setattr("isoflop.runs.claim.WATCH_SECONDS", 0.0)
    tiny = Tiny.of(disk, steps=3)
    config = tiny.config
    tiny.train(disk / "undisturbed")
    with recorded(root) as recorder:
        recorder.committed = tiny.train(root / "runs" / config.run_id, 0.0)
    steps = {}
    for left, committed in every_disk(recorder, disk / "disks"):
        folder = RunFolder(left / "runs" / config.run_id)
        steps[check_run(folder, config, committed)] = folder
    assert set(steps) == {0, 1, 2, 3}
    for folder in steps.values():
        tiny.train(folder)
    tiny.assert_undisturbed(*steps.values())


def test_a_record_that_a_killed_owner_left_is_durable_once_another_has_seen_it(
    root: Path, disk: Path
) -> None:
    tiny = Tiny.of(disk, steps=3)
    run = RunFolder(root / "runs" / tiny.config.run_id)
    record = tiny.train(run)
    (run.path / "record.json").unlink()
    with recorded(root) as recorder:
        with killed_before_it_is_durable(run.path / "record.json"), run.claim():
            run.write_record(record)
        recorder.committed = tiny.train(run.path)
    assert recorder.committed == record
    lost = 0
    for left, committed in every_disk(recorder, disk / "disks"):
        found = RunFolder(left / "runs" / tiny.config.run_id).record()
        assert found == record or committed is None
        lost += found is None
    assert lost
