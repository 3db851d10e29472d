"""EIO on the n-th write or fsync, transient and lasting.

Injected: strace fails each write and fsync of `checkpoint.save` and of a log of metrics in turn,
once or from then on. Expected: the error is told, nothing is claimed saved, and no file is synced
again after its fsync failed.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from strace_faults import REFUSED, Struck, strike

from isoflop import checkpoint, storage
from isoflop.runs import MetricsLog, read_metrics

STATE = {"weight": torch.arange(35.0).reshape(5, 7)}


def log_and_save(folder: Path) -> None:
    """What a run does at a checkpoint: rows, made durable, then the state."""
    with MetricsLog(folder / "metrics.jsonl", 20) as log:
        for step in range(21, 24):
            log.append({"step": step})
        log.sync()
    checkpoint.save(folder / "checkpoint", 23, STATE, {"seconds": 1.0})
    (folder / "claimed saved").touch()


def syncs_after_a_failure(log: str) -> list[str]:
    """Files that were synced again by the process in which their fsync had failed."""
    failed: set[tuple[str, str]] = set()
    again = []
    for line in log.splitlines():
        call = re.match(r"(\d+) +fsync\(\d+<(.*)>\)", line)
        if call:
            if call.groups() in failed:
                again.append(line)
            if "(INJECTED)" in line:
                failed.add((call[1], call[2]))
    assert failed
    return again


def check(struck: list[Struck]) -> None:
    found = []
    for child in struck:
        assert child.code == REFUSED, child.told
        assert re.search(r"cannot write /.*: Input/output error \(\d+ bytes free", child.told)
        assert not (child.folder / "claimed saved").exists()
        left = [path for path in child.folder.rglob("*") if path.name.startswith(storage.TEMPORARY)]
        assert left == [], (child.call, child.nth)
        saved = checkpoint.latest(child.folder / "checkpoint")
        assert saved is not None
        found.append(saved.step)
        rows, corrupt = read_metrics(child.folder / "metrics.jsonl")
        steps = [row["step"] for row in rows]
        assert steps == list(range(1, len(steps) + 1))
        assert saved.step <= len(steps)
        assert corrupt == 0 or child.call == "write"
        log_and_save(child.folder)
    # The last fsync, of the parent, comes after the rename: the new state is seen, not claimed.
    assert found == [20] * (len(found) - 1) + [23]


@pytest.mark.parametrize("lasting", [False, True], ids=["transient", "lasting"])
def test_row_05_errors_of_the_disk_are_told_and_nothing_is_claimed(
    disk: Path, lasting: bool
) -> None:
    template, place = disk / "template", disk / "failed"
    place.mkdir()
    checkpoint.save(template / "checkpoint", 20, STATE, {"seconds": 0.5})
    with MetricsLog(template / "metrics.jsonl", 0) as log:
        for step in range(1, 23):
            log.append({"step": step})

    struck, seen = strike(
        log_and_save, template, place, "error=EIO", ("write", "fsync"), lasting=lasting
    )

    # Three rows and three files; the log twice (once cut), three files, two folders.
    assert Counter(child.call for child in struck) == {"write": 6, "fsync": 7}
    assert syncs_after_a_failure(seen) == []
    check(struck)
