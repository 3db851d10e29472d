"""Row 15. Fault: the clock is an hour off, forwards or backwards, and jumps meanwhile.

Injected: `time.time` an hour off in one process, and times of files set by hand.
Expected: no claim is stolen and none is stuck; the newest checkpoint is that of the highest step;
the run ends as it does with a right clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from one_tiny_run import Tiny
from processes import kill, start, wait_until_paused

from isoflop import checkpoint
from isoflop.runs import RunClaimed, RunFolder

HOUR = 3600.0
PAUSE = 6
"""Step at which the first owner is paused, before its checkpoint."""


def train_at_another_time(tiny: Tiny, folder: Path, hours: float) -> None:
    """Train a run by a clock that is wrong, and pause in it; a target for `start`."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + hours * HOUR
    time.time_ns = lambda: right_ns() + int(hours * HOUR * 1e9)
    tiny.pause(folder, PAUSE)


@pytest.mark.parametrize("hours", [1.0, -1.0], ids=["ahead", "behind"])
def test_row_15_a_wrong_clock_steals_nothing_and_is_stuck_nowhere(
    tmp_path: Path, hours: float
) -> None:
    tiny, folder = Tiny.of(tmp_path, steps=12), RunFolder(tmp_path / "run")
    process = start(train_at_another_time, tiny, folder.path, hours)
    wait_until_paused(process)
    # Not by another clock, and not by the times of the files either.
    then = time.time() - 100 * hours * HOUR
    os.utime(folder.path / "claim-1", (then, then))
    with pytest.raises(RunClaimed):
        tiny.train(folder)
    kill(process)
    saved = sorted(folder.checkpoints.glob("step-*"))
    assert len(saved) == 2
    for age, path in enumerate(saved):
        for file in (path, *path.iterdir()):
            os.utime(file, (then - age * hours * HOUR,) * 2)
    found = checkpoint.latest(folder.checkpoints)
    assert found is not None
    assert found.step == PAUSE - 1
    tiny.train(folder)
    tiny.assert_undisturbed(folder)
