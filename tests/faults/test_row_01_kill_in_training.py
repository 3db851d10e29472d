"""Row 1. Fault: a run is killed at any moment of its training, and again right after resuming.

Injected: SIGKILL at seeded moments, three times; every second one as soon as the run has resumed.
Expected: final weights bitwise those of the undisturbed run; one metric row for every step.
"""

from __future__ import annotations

import random
from pathlib import Path

from one_tiny_run import Tiny
from processes import kill, start, wait_for

from isoflop.runs import RunFolder


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_row_01_killed_runs_end_as_undisturbed_ones(tmp_path: Path) -> None:
    chance = random.Random(1)
    tiny, killed = Tiny.of(tmp_path, steps=100), RunFolder(tmp_path / "killed")
    tiny.train(tmp_path / "undisturbed")
    metrics, attempts = killed.path / "metrics.jsonl", killed.path / "attempts.jsonl"
    for number in range(3):
        # A checkpoint every few steps, so that there are steps to be made again.
        process = start(tiny.train, killed.path, 0.05)
        if number % 2:
            wait_for(lambda number=number: lines(attempts) > number)
        else:
            until = lines(metrics) + chance.randint(1, 10)
            wait_for(lambda until=until: lines(metrics) >= until)
        kill(process)
        assert killed.state() == "interrupted"
    assert tiny.train(killed).attempts == 4
    tiny.assert_undisturbed(killed)
