"""Several `isoflop work` on one folder, killed and stopped, end as one undisturbed run."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from processes import command, ended, others, start, wait_for

from isoflop.config import Study
from isoflop.runs import RunStore, claim
from isoflop.sweep import status
from isoflop.sweep.schedule.attempts import FAILURES
from outcomes import assert_same_run, assert_whole
from sweep_studies import LONGER, ROUTED, brief, train_study, unmeasured, write_corpus

LIMITED = ("--time-limit", "0.05")
SERVERS = [f"/usr/{place}/sftp-server" for place in ("lib/openssh", "libexec/openssh", "lib/ssh")]


def working(folder: Path, *options: str) -> int:
    """Run `isoflop work` with short leases; a target for `start`."""
    for name, seconds in {"LEASE": 4.0, "RENEW": 0.5, "WATCH": 2.0, "TRUST": 1.0}.items():
        setattr(claim, f"{name}_SECONDS", seconds)
    return command(folder, "work", "study.json", *options)


def undisturbed(study: Study, folder: Path) -> None:
    """Train a study as one process does; a target for `start`."""
    train_study(study, folder / "right", folder / "cache", measure=unmeasured, compiled=False)


def the_same(study: Study, folder: Path) -> Iterator[bool]:
    assert ended(start(undisturbed, study, folder), 1800) == 0
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


def disturbed(study: Study, store: RunStore, begin: Callable[[], BaseProcess], kills: int) -> None:
    """Train a study by some workers, of whom one after the other is stopped or killed."""
    workers, chance = (8 if kills > 2 else 2), random.Random(kills)
    crew = [begin() for _ in range(workers)]
    whole, allowed = 137, FAILURES - 1
    for number in range(kills):
        wait_for(lambda number=number: steps(store) >= (number + 0.5) * whole / (kills + 1))
        victim = crew.pop(chance.randrange(len(crew)))
        how = (signal.SIGTERM, signal.SIGKILL)[number % 2]
        # One that has no run yet may still be importing what heeds the signal.
        waiting = victim.pid not in holders(store)
        with suppress(ProcessLookupError):
            os.kill(victim.pid or 0, how)
        # What trains for the others is lost too, but no run is tried too often from one checkpoint.
        if how == signal.SIGKILL and allowed and chance.random() < 0.5:
            allowed -= 1
            for pid in others(*crew):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        early = (-signal.SIGTERM,) if waiting else ()
        assert ended(victim) in (143, -signal.SIGKILL, 255, 0, *early)
        crew.append(begin())
    assert [ended(one, 1800) for one in crew] == [0] * workers


@pytest.mark.parametrize("kills", [2, pytest.param(16, marks=pytest.mark.slow)])
def test_workers_that_are_killed_and_stopped_end_as_one_run(tmp_path: Path, kills: int) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"), ROUTED, budget=LONGER)
    store, said = place(tmp_path, study), tmp_path / "said.txt"
    disturbed(study, store, lambda: start(working, tmp_path, said=said), kills)
    assert "Traceback" not in said.read_text()
    assert all(the_same(study, tmp_path))


@contextmanager
def mounted(source: Path, *places: Path) -> Iterator[None]:
    """Show a folder at other places as sshfs shows one of another machine; no port is opened."""
    server = next(filter(os.path.exists, SERVERS), None)
    if server is None or not shutil.which("sshfs") or not os.access("/dev/fuse", os.W_OK):
        pytest.skip("needs sshfs and /dev/fuse: apt-get install sshfs openssh-sftp-server")
    with ExitStack() as stack:
        for one in places:
            one.mkdir()
            ours, theirs = socket.socketpair()
            with ours, theirs:
                mount = ["sshfs", f":{source}", str(one), "-f", "-o", "passive"]
                for line, end in (([server], theirs), (mount, ours)):
                    process = stack.enter_context(subprocess.Popen(line, stdin=end, stdout=end))
                    stack.callback(process.terminate)
            stack.callback(subprocess.run, ["umount", "-l", str(one)], check=True)
            wait_for(one.is_mount)
        yield


@pytest.mark.slow
def test_workers_on_a_folder_over_a_network_end_as_one_run(tmp_path: Path) -> None:
    """Two machines, as far as the folder tells: no lock of one is seen by the other."""
    server, sites = tmp_path / "server", [tmp_path / "here", tmp_path / "there"]
    server.mkdir()
    study = brief(write_corpus(tmp_path / "text.txt"), ROUTED, budget=LONGER)
    store, said = place(server, study), tmp_path / "said.txt"
    turns = itertools.cycle(sites)

    def begin() -> BaseProcess:
        site = next(turns)
        cache = str(tmp_path / f"cache-{site.name}")
        return start(command, site, "work", "study.json", "--cache", cache, said=said)

    with mounted(server, *sites):
        disturbed(study, store, begin, 16)
    assert "Traceback" not in said.read_text()
    assert all(the_same(study, server))


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
