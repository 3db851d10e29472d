"""Workers that a cluster starts: queued while runs wait, again after a time limit, and no more."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from processes import command, ended, send, start, wait_for
from test_workers import place, the_same

from isoflop.cli import main
from isoflop.cli.commands import command_named
from isoflop.cli.main import parsed
from isoflop.cli.study import Run
from isoflop.config import Study
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Folders
from isoflop.sweep import cluster as clusters
from isoflop.sweep.cluster import Cluster, Queue, cluster_of, queue_on
from isoflop.sweep.schedule.executor import Ended
from sweep_studies import LONGER, brief, tiny, write_corpus

TOOLS = Path(__file__).parents[2] / "tools" / "cluster"


class Fake:
    """A queue whose jobs end when they are told to."""

    def __init__(self) -> None:
        self.alive: set[str] = set()
        self.count = 0

    def submit(self) -> str:
        self.count += 1
        self.alive.add(str(self.count))
        return str(self.count)

    def living(self, ids) -> set[str]:
        return self.alive & set(ids)


def test_as_many_workers_are_queued_as_runs_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(
        clusters, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None)
    )
    fake = Fake()
    queue = Queue(fake, 2, tmp_path / "jobs")
    first, second, third = next_runs(tiny(tmp_path / "text.txt"), [])
    paths = {run.config.run_id: tmp_path / run.config.run_id for run in (first, second, third)}

    def poll(seconds: float = 10.0):
        now[0] += seconds
        return dict(queue.poll(0.0))

    for run in (first, second):
        queue.start(run, paths[run.config.run_id])
    assert fake.count == 2
    # One that waits in the queue for hours is no silent one.
    assert poll(10_000) == {first.config.run_id: None, second.config.run_id: None}
    with RunFolder(paths[first.config.run_id]).claim():
        assert poll()[first.config.run_id] == Ended("claimed")
        queue.start(third, paths[third.config.run_id])
        assert fake.count == 2
    # The job that had it is preempted: another one is queued, as two runs wait.
    fake.alive.discard("1")
    assert set(poll()) == {second.config.run_id, third.config.run_id}
    assert fake.count == 3
    queue.cancel(third.config.run_id, at_once=False)
    assert poll()[third.config.run_id] == Ended("interrupted")
    fake.alive.clear()
    fake.submit = lambda: "gone at once"  # type: ignore[method-assign]
    # For a minute that may be a node that is lost and not known to be.
    for _ in range(5):
        poll()
    with pytest.raises(OSError, match="workers ended at once and took no run"):
        [poll() for _ in range(3)]


def test_a_queue_that_refuses_for_a_while_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None)
    monkeypatch.setattr(clusters, "time", clock)
    fake = Fake()
    queue, run = Queue(fake, 1, tmp_path / "jobs"), next_runs(tiny(tmp_path / "text.txt"), [])[0]

    def poll(seconds: float) -> None:
        now[0] += seconds
        queue.poll(0.0)

    def refuse() -> str:
        raise OSError("sbatch: error: Socket timed out")

    with monkeypatch.context() as patch:
        patch.setattr(fake, "submit", refuse)
        with pytest.raises(OSError, match="Socket timed out"):
            queue.start(run, tmp_path / "run")
    queue.start(run, tmp_path / "run")
    fake.alive.clear()
    with monkeypatch.context() as patch:
        patch.setattr(fake, "submit", refuse)
        with pytest.warns(UserWarning, match="which is tried again: sbatch: error: Socket"):
            poll(100)
        poll(100)
    poll(100)
    assert fake.alive == {"2"}
    queue.capacity = 2
    monkeypatch.setattr(fake, "submit", refuse)
    second = next_runs(tiny(tmp_path / "text.txt"), [])[1]
    with pytest.warns(UserWarning, match="tried again"):
        queue.start(second, tmp_path / "second")
    poll(4000)  # beside one that is alive
    fake.alive.clear()
    with pytest.raises(OSError, match="Socket timed out"):
        poll(4000)


def test_the_table_is_beside_the_study_or_the_user_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "studies" / "study.toml"
    study.parent.mkdir()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert cluster_of(study) == Cluster()
    theirs = tmp_path / "config" / "isoflop" / "cluster.toml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("[cluster]\njobs = 3\n")
    assert cluster_of(study).jobs == 3
    beside = study.parent / "cluster.toml"
    beside.write_text('[cluster]\ntime_limit = 60\n[cluster.slurm]\npartition = "gpu"\n')
    assert (cluster_of(study).jobs, cluster_of(study).slurm) == (1, {"partition": "gpu"})
    beside.write_text("[cluster]\njob = 3\n")
    with pytest.raises(ValueError, match=r"cluster.toml.*job"):
        cluster_of(study)
    beside.write_text("[cluster.slurm]\nmem = 1.5\n")
    with pytest.raises(ValueError, match=r"slurm\.mem is 1\.5; expected text or a whole number or"):
        cluster_of(study)


@pytest.mark.parametrize(
    ("where", "said"),
    [pytest.param("slurm", "sbatch", marks=pytest.mark.slow), ("ray", "isoflop[ray]")],
)
def test_what_is_missing_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: str,
    said: str,
) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"))
    place(tmp_path, study)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("isoflop.sweep.running.measured_speeds", lambda *_, **__: None)
    assert main(["run", "study.json", "--on", where]) == 2
    assert said in capsys.readouterr().err


SBATCH = """#!/bin/sh
for last; do :; done
sh -c "${last#--wrap=}" > jobs.txt 2>&1 < /dev/null &
echo $! | tee -a queue
"""
SQUEUE = """#!/bin/sh
for job in $(cat queue); do kill -0 $job 2>/dev/null && echo $job; done
exit 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("real", [False, True], ids=["stand-in", "real"])
def test_a_study_is_trained_by_jobs_of_slurm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    if not real:
        for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    elif shutil.which("sbatch") is None:
        pytest.skip("needs Slurm: apt-get install slurmctld slurmd slurm-client munge, and run it")
    study = brief(write_corpus(tmp_path / "text.txt"), budget=LONGER)
    place(tmp_path, study)
    (tmp_path / "cluster.toml").write_text("[cluster]\njobs = 2\ntime_limit = 5\n")
    said = tmp_path / "said.txt"
    code = ended(start(on, tmp_path, "slurm", os.environ["PATH"], said=said))
    assert code == 0, said.read_text()
    assert all(the_same(study, tmp_path))


def test_a_second_command_counts_the_jobs_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def said(command: list[str]) -> str:
        if command[0] == "sbatch":
            asked.append(" ".join(command))
            return f"{len(asked)};cluster\n"
        return "\n".join(map(str, range(len(asked) + 1)))

    monkeypatch.setattr(clusters, "_said", said)
    cluster = Cluster(jobs=2, slurm={"mem": 0, "nice": False}, arguments=("--device", "cuda"))
    given = Run(study=tmp_path, memory_gib=1.5, recompute="full", stall_minutes=9).of_workers()
    for _ in range(2):
        queue = queue_on("slurm", tmp_path, "tiny", Folders(tmp_path), cluster, given)
        for run in next_runs(tiny(tmp_path / "text.txt"), []):
            queue.start(run, tmp_path / run.config.run_id)
    assert [("--mem=0" in one, "nice" in one) for one in asked] == [(True, False)] * 2
    work = parsed(command_named("work"), asked[0].partition(" work ")[2].rstrip("'").split())
    assert (work.device, work.memory_gib, work.recompute) == ("cuda", 1.5, "full")


@contextmanager
def under_way_on_ray(tmp_path: Path) -> Iterator[tuple[Any, Study, RunStore, BaseProcess, Path]]:
    """Start a Ray of two nodes and a study there; go on once both train, and end it all."""
    pytest.importorskip("ray", reason="needs Ray: pip install ray")
    cluster, nodes = runpy.run_path(str(TOOLS / "ray"))["two_nodes"]()
    try:
        study = brief(write_corpus(tmp_path / "text.txt"), budget=8 * LONGER)
        store, said = place(tmp_path, study), tmp_path / "said.txt"
        table = f'[cluster]\njobs = 2\n[cluster.ray]\naddress = "{cluster.address}"\n'
        (tmp_path / "cluster.toml").write_text(table)
        running = start(on, tmp_path, "ray", os.environ["PATH"], said=said)
        wait_for(lambda: sum(len(one.read_metrics()[0]) > 20 for one in store.folders()) > 1)
        yield partial(cluster.remove_node, nodes[0]), study, store, running, said
        ended(running)
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_a_study_outlives_a_node_of_ray(tmp_path: Path) -> None:
    with under_way_on_ray(tmp_path) as (remove_node, study, _, running, said):
        remove_node(allow_graceful=False)
        assert ended(running) == 0, said.read_text()
    assert all(the_same(study, tmp_path))


@pytest.mark.slow
def test_a_stopped_command_has_tasks_of_ray_save_their_runs(tmp_path: Path) -> None:
    with under_way_on_ray(tmp_path) as (_, _, store, running, said):
        send(running, signal.SIGINT)
        assert ended(running) == 130, said.read_text()
        for folder in store.folders():
            newest = max(int(one.name[5:]) for one in folder.checkpoints.glob("step-*"))
            assert newest == len(folder.read_metrics()[0])
            assert not folder.is_claimed()


HARMS = {
    "killed": [["scancel", "--signal=KILL", "--full", "JOB"]],
    "requeued": [
        ["scontrol", "requeue", "JOB"],
        ["scontrol", "update", "jobid=JOB", "StartTime=now"],
    ],
    "preempted by partition": [
        ["sbatch", "-purgent", "--exclusive", "--wrap=sleep 5", "-o/dev/null"]
    ],
    "out of time by its own clock": [],
    "out of time by that of Slurm": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS)
def test_jobs_of_slurm_that_end_early_are_queued_again(tmp_path: Path, harm: str) -> None:
    if shutil.which("sinfo") is None or subprocess.run(["sinfo"], capture_output=True).returncode:
        pytest.skip("needs Slurm: see tools/cluster/slurm, which says what to install")
    # More than fits a job of one minute, the least that Slurm knows; it takes seconds to preempt.
    length = 320 if not HARMS[harm] else 128 if "preempted" in harm else 8
    study = brief(write_corpus(tmp_path / "text.txt"), budget=length * LONGER)
    store = place(tmp_path, study)
    limit = "time_limit = 1" if "own" in harm else "[cluster.slurm]\ntime = 1" * (not HARMS[harm])
    where = '[cluster.slurm]\npartition = "spot"' * ("preempted" in harm)
    (tmp_path / "cluster.toml").write_text(f"[cluster]\njobs = 1\n{limit}{where}\n")
    said = tmp_path / "said.txt"
    running = start(on, tmp_path, "slurm", os.environ["PATH"], said=said)
    wait_for(lambda: any(len(one.read_metrics()[0]) > 20 for one in store.folders()))
    queued = subprocess.run(["squeue", "-ho", "%A"], capture_output=True, text=True, check=True)
    (job,) = queued.stdout.split()
    for call in HARMS[harm]:
        subprocess.run([part.replace("JOB", job) for part in call], check=True)
    assert ended(running, 1800) == 0, said.read_text()
    made = [one for folder in store.folders() for one in folder.attempts_made()]
    assert len(made) > len(store.folders())
    if not HARMS[harm] or "preempted" in harm:
        # What stopped them was heeded: each left a checkpoint, and the next went on from there.
        assert {one.ending for one in made if one.ending} == {"preempted"}
        assert any(one.step for one in made)
    assert all(the_same(study, tmp_path))


def on(folder: Path, where: str, path: str) -> int:
    """Run `isoflop run --on`; a target for `start`."""
    os.environ["PATH"] = path
    return command(folder, "run", "study.json", "--on", where)
