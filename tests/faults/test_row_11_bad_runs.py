"""Row 11. Fault: one run of a study runs out of memory, crashes at the same step, or hangs.

Injected: a limit of memory that the run exceeds, SIGKILL at its fourth step, a process that sleeps.
Expected: that run is `failed` with its reason after three attempts, across restarts of the command;
its siblings finish. (That the report says what is missing is shown with row 9.)
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import trainers
from rich.console import Console

from isoflop.cli import main
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Outcome
from isoflop.sweep.local.worker import Train
from sweep_studies import (
    Study,
    instant,
    is_large,
    tiny,
    train_study,
    unmeasured,
    write_corpus,
)


class Place:
    """A study with one bad run, and where it is trained."""

    def __init__(self, folder: Path) -> None:
        self.study: Study = tiny(write_corpus(folder / "text.txt"))
        self.root = folder / "runs" / "tiny"
        self.cache = folder / "cache"
        planned = [run.config for run in next_runs(self.study, [])]
        (self.bad,) = [config for config in planned if is_large(config)]
        self.folder: RunFolder = RunStore(self.root).folder(self.bad.run_id)
        self.said = io.StringIO()

    def run(self, train: Train, **options: object) -> Outcome:
        console = Console(file=self.said, width=200)
        known = {"workers": 2, "console": console, "train": train, "measure": unmeasured}
        return train_study(self.study, self.root, self.cache, **{**known, **options})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        (trainers.short_of_memory, "MemoryError: over the limit of 2 GiB of memory"),
        (trainers.killed_at_one_step, "killed by SIGKILL, as the system does when memory runs out"),
        (trainers.hanging, "hung: no sign of life for 0.02 minutes"),
    ],
    ids=["memory", "crash", "hang"],
)
def test_row_11_a_bad_run_fails_and_its_siblings_finish(
    place: Place, train: Train, reason: str
) -> None:
    outcome = place.run(train, stall_seconds=1.2)
    assert (outcome.failed, outcome.left) == (1, 0)
    assert outcome.finished >= 2
    record = place.folder.record()
    assert record is not None
    assert record.state == "failed"
    assert record.reason is not None
    assert record.reason.startswith(("MemoryError", "the process", "hung"))
    assert reason in record.reason
    assert record.attempts == 3
    assert [one.ending for one in place.folder.attempts_made()] == ["failed"] * 3
    assert "attempt 3 of 3 failed" in place.said.getvalue()


def test_row_11_attempts_are_bounded_across_restarts(place: Place) -> None:
    with place.folder.claim():
        place.folder.create(place.bad)
        for _ in range(2):
            place.folder.begin_attempt(0)
            place.folder.end_attempt("failed", "before")
        # The scheduler was killed with it: no failure, but an attempt.
        place.folder.begin_attempt(0)
    outcome = place.run(trainers.killed_at_one_step)
    assert outcome.failed == 1
    assert place.folder.attempts == 4
    record = place.folder.record()
    assert record is not None
    assert record.attempts == 4
    assert "SIGKILL" in (record.reason or "")


def test_row_11_a_limit_below_what_runs_need_is_said_at_planning(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place.run(instant, memory_bytes=2**18)
    said = place.said.getvalue()
    assert "expected to need more than the limit of 0.000244 GiB of memory" in said
    (tmp_path / "study.json").write_text(place.study.model_dump_json())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("isoflop.sweep.plan._measured", lambda *_: (None, "not measured"))
    assert main(["plan", "study.json", "--memory-gib", "0.0002"]) == 0
    assert "does not fit: Baseline at 3e8, " in capsys.readouterr().out
    assert main(["run", "study.json", "--memory-gib", "0"]) == 2
