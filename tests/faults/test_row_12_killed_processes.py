"""Row 12. Fault: a worker is killed, or the scheduler.

Injected: SIGKILL for either while runs are under way.
Expected: the scheduler tries the worker's run again; after its own death the same command goes on,
what was finished is untouched, and the run ends bitwise as if nothing had happened. On clusters:
`test_executors`.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from kills import train_study
from processes import command, ended, kill, others, owner, start, wait_for

from isoflop.runs import RunFolder, RunStore
from isoflop.training import train
from outcomes import assert_same_run, assert_whole
from sweep_studies import LONGER, brief, write_corpus

RUN = ("run", "study.json", "--workers", "2")


def under_way(store: RunStore) -> RunFolder | None:
    """Return a run that has made a step and has no record."""
    for folder in store.folders():
        if folder.read_metrics()[0] and folder.record() is None and folder.is_claimed():
            return folder
    return None


def test_row_12_killed_workers_and_schedulers_cost_nothing(tmp_path: Path) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), budget=LONGER)
    (tmp_path / "study.json").write_text(study.model_dump_json())
    store = RunStore(tmp_path / "runs" / "tiny")
    said = tmp_path / "said.txt"

    process = start(command, tmp_path, *RUN, said=said)
    wait_for(lambda: under_way(store) is not None)
    victim = under_way(store)
    assert victim is not None
    pid = owner(victim.path, process)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    # It is tried again, and others finish meanwhile.
    wait_for(lambda: victim.attempts == 2 and bool(store.records()))
    kill(process)
    wait_for(lambda: not others())
    assert victim.attempts_made()[0].ending == "failed"
    assert "killed by SIGKILL" in (victim.attempts_made()[0].reason or "")
    before = {r.run_id: (store.folder(r.run_id).path / "record.json") for r in store.records()}
    contents = {run_id: (path.read_bytes(), path.stat()) for run_id, path in before.items()}

    assert ended(start(command, tmp_path, *RUN, said=said)) == 0
    assert {folder.state() for folder in store.folders()} == {"finished"}
    for run_id, path in before.items():
        assert (path.read_bytes(), path.stat()) == contents[run_id]
    assert_whole(store)
    right = RunFolder(tmp_path / "undisturbed")
    train(victim.config(), right, cache=tmp_path / "cache", threads=1, compiled=False)
    assert_same_run(victim, right)


def test_row_12_workers_of_a_killed_scheduler_save_and_let_go(tmp_path: Path) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), budget=LONGER)
    store = RunStore(tmp_path / "study")
    scheduler = start(train_study, study, tmp_path, 0.1, False)
    wait_for(
        lambda: any(list(f.checkpoints.glob("step-*")) and not f.record() for f in store.folders())
    )
    kill(scheduler)
    wait_for(lambda: not others())
    states = [folder.state() for folder in store.folders()]
    assert "preempted" in states
    assert not {"running", "interrupted", "failed"} & set(states)
    assert_whole(store)
