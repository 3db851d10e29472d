"""EIO on the n-th write or fsync, transient and lasting.

Injected: each write and fsync of `checkpoint.save` and of a log of metrics fails in turn, once or
from then on. Expected: the error is told, nothing is claimed saved, and no file is synced again
after its fsync failed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from failpoints import Calls, struck_at

from isoflop import checkpoint, storage
from isoflop.runs import MetricsLog, read_metrics
from isoflop.storage import StorageError

STATE = {"weight": torch.arange(35.0).reshape(5, 7)}


def log_and_save(folder: Path) -> None:
    """What a run does at a checkpoint: rows, made durable, then the state."""
    with MetricsLog(folder / "metrics.jsonl", 20) as log:
        for step in range(21, 24):
            log.append({"step": step})
        log.sync()
    checkpoint.save(folder / "checkpoint", 23, STATE, {"seconds": 1.0})
    (folder / "claimed saved").touch()


def fail() -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def check(folder: Path, calls: Calls) -> int:
    """Hold what a failure left; return the step of the newest checkpoint."""
    assert calls.again == []
    assert not (folder / "claimed saved").exists()
    assert [path for path in folder.rglob("*") if path.name.startswith(storage.TEMPORARY)] == []
    saved = checkpoint.latest(folder / "checkpoint")
    assert saved is not None
    rows, corrupt = read_metrics(folder / "metrics.jsonl")
    steps = [row["step"] for row in rows]
    assert steps == list(range(1, len(steps) + 1))
    assert saved.step <= len(steps)
    assert corrupt == 0 or calls.struck == "write"
    log_and_save(folder)
    return saved.step


@pytest.mark.parametrize("lasting", [False, True], ids=["transient", "lasting"])
def test_row_05_errors_of_the_disk_are_told_and_nothing_is_claimed(
    disk: Path, lasting: bool
) -> None:
    template = disk / "template"
    checkpoint.save(template / "checkpoint", 20, STATE, {"seconds": 0.5})
    with MetricsLog(template / "metrics.jsonl", 0) as log:
        for step in range(1, 23):
            log.append({"step": step})

    told, found = r"cannot write /.*: Input/output error \(\d+ bytes free", []
    struck: Counter[str] = Counter()
    shutil.copytree(template, disk / "undisturbed")
    with struck_at(-1, fail) as calls:
        log_and_save(disk / "undisturbed")
    for nth, kind in enumerate(list(calls.made)):
        if kind not in ("write", "fsync"):
            continue
        folder = disk / str(nth)
        shutil.copytree(template, folder)
        with struck_at(nth, fail, lasting) as calls, pytest.raises(StorageError, match=told):
            log_and_save(folder)
        struck[kind] += 1
        found.append(check(folder, calls))
    # Three rows and three files; the log twice (once cut), three files, two folders.
    assert struck == {"write": 6, "fsync": 7}
    # The last fsync, of the parent, comes after the rename: the new state is seen, not claimed.
    assert found == [20] * (len(found) - 1) + [23]
