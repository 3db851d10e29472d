"""Several `isoflop work` on one folder, killed and stopped, end as one undisturbed run."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import command, ended, others, start, wait_for

from isoflop.config import Study
from isoflop.runs import RunStore, claim
from isoflop.sweep import status
from outcomes import assert_same_run, assert_whole
from sweep_studies import LONGER, ROUTED, brief, train_study, unmeasured, write_corpus

LIMITED = ("--time-limit", "0.05")


def working(folder: Path, *options: str) -> int:
    """Run `isoflop work` with short leases; a target for `start`."""
    for name, seconds in {"LEASE": 4.0, "RENEW": 0.5, "WATCH": 2.0, "TRUST": 1.0}.items():
        setattr(claim, f"{name}_SECONDS", seconds)
    return command(folder, "work", "study.json", *options)


def undisturbed(study: Study, folder: Path) -> None:
    """Train a study as one process does; a target for `start`."""
    train_study(study, folder / "right", folder / "cache", measure=unmeasured, compiled=False)


def the_same(study: Study, folder: Path) -> Iterator[bool]:
    assert ended(start(undisturbed, study, folder)) == 0
    right, store = RunStore(folder / "right"), RunStore(folder / "runs" / "tiny")
    assert status(study, folder / "runs" / "tiny").complete
    assert [one.path.name for one in store.folders()] == [one.path.name for one in right.folders()]
    assert_whole(store)
    for expected in right.folders():
        assert_same_run(store.folder(expected.path.name), expected)
        yield True


def place(folder: Path, study: Study) -> RunStore:
    (folder / "study.json").write_text(study.model_dump_json())
    return RunStore(folder / "runs" / "tiny")


def steps(store: RunStore) -> int:
    return sum(len(folder.read_metrics()[0]) for folder in store.folders())


def holders(store: RunStore) -> set[int | None]:
    """Return the processes that have runs."""
    leases = [folder.lease() for folder in store.folders()]
    return {one.holder.pid for one in leases if one is not None and one.holder is not None}


@pytest.mark.parametrize(
    ("workers", "kills"), [(2, 2), pytest.param(8, 16, marks=pytest.mark.slow)]
)
def test_workers_that_are_killed_and_stopped_end_as_one_run(
    tmp_path: Path, workers: int, kills: int
) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), ROUTED, budget=LONGER)
    store, chance = place(tmp_path, study), random.Random(workers)
    said = tmp_path / "said.txt"
    crew: list[BaseProcess] = [start(working, tmp_path, said=said) for _ in range(workers)]
    whole = 137
    for number in range(kills):
        wait_for(lambda number=number: steps(store) >= (number + 0.5) * whole / (kills + 1))
        victim = crew.pop(chance.randrange(len(crew)))
        how = (signal.SIGTERM, signal.SIGKILL)[number % 2]
        # One that has no run yet may still be importing what heeds the signal.
        waiting = victim.pid not in holders(store)
        with suppress(ProcessLookupError):
            os.kill(victim.pid or 0, how)
        if how == signal.SIGKILL and chance.random() < 0.5:
            for pid in others(*crew):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        early = (-signal.SIGTERM,) if waiting else ()
        assert ended(victim) in (143, -signal.SIGKILL, 255, 0, *early)
        crew.append(start(working, tmp_path, said=said))
    assert [ended(one) for one in crew] == [0] * workers
    assert "Traceback" not in said.read_text()
    assert all(the_same(study, tmp_path))


@pytest.mark.slow
def test_runs_longer_than_a_limit_are_finished_over_several_jobs(tmp_path: Path) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), budget=LONGER)
    store = place(tmp_path, study)
    jobs = 0
    while not (jobs and status(study, store.root).complete):
        assert ended(start(working, tmp_path, "--until-idle", *LIMITED)) == 0
        assert not {folder.state() for folder in store.folders()} & {"running", "failed"}
        jobs += 1
    assert jobs > 1
    assert all(the_same(study, tmp_path))
