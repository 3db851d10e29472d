"""Executors that train nothing here: workers started by hand, or queued as jobs of a cluster.

A job is an `isoflop work` and takes what it likes. Nothing is sent to it but its command line:
what it trains is in the study's folder.
"""

from __future__ import annotations

import getpass
import math
import os
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from isoflop import storage
from isoflop.config.load import read, validated
from isoflop.frozen import Frozen
from isoflop.planning import PlannedRun
from isoflop.runs import RunFolder
from isoflop.sweep.ledger import Folders
from isoflop.sweep.schedule.executor import LEAVING_SECONDS, Ended, Message

LOOK_SECONDS = 5.0
"""Time between two looks at the queue."""
AT_ONCE_SECONDS = 60.0
"""A job that lives no longer, and takes no run, did not work; jobs that a cluster gives to a node
that it does not know to be lost end so too, but not for as long as that."""
PATIENT_SECONDS = 3600.0
"""A queue that took workers may refuse one for so long where it has none left, as a busy one does;
for ever beside others, as where a site allows fewer."""
JOBS = "jobs"
"""Folder of what jobs print, in the study's folder."""
FILE = "cluster.toml"
"""Table `[cluster]`: how workers are started, in a file beside the study or of the user."""


class RayTask(Frozen):
    """What a worker is on Ray."""

    address: str = "auto"
    """Of a cluster that runs; none is started."""
    num_cpus: float = Field(default=1, ge=0)
    num_gpus: float = Field(default=0, ge=0)


class Cluster(Frozen):
    """How a cluster starts workers; no part of what a study is."""

    jobs: int = Field(default=1, ge=1)
    """Workers that are queued or run at a time, at most."""
    time_limit: float | None = Field(default=None, gt=0)
    """Minutes of a job; it is queued again as long as runs are left. None for the cluster's own."""
    command: tuple[str, ...] = (sys.executable, "-m", "isoflop.cli")
    """What starts `isoflop` where the jobs run."""
    arguments: tuple[str, ...] = ()
    """Of `isoflop work`, such as `--device cuda`."""
    slurm: dict[str, str | int | bool] = Field(default_factory=dict)
    """Options of sbatch by their long names, such as `partition`; true for one without a value,
    false for none."""
    ray: RayTask = RayTask()


def cluster_of(study: Path) -> Cluster:
    """Return the table in `cluster.toml` beside a study, else in the user's, else what is usual.

    Raises:
        ValueError: the file is malformed, or has other tables than `[cluster]`.
    """
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    for path in (study.parent / FILE, home / "isoflop" / FILE):
        if path.is_file():
            data = read(path)
            if data.keys() != {"cluster"}:
                raise ValueError(f"{path} has {sorted(data)[:5]}; expected the table [cluster]")
            return validated(Cluster, data["cluster"], str(path))
    return Cluster()


class Queue:
    """Keeps as many workers queued as runs wait for one; an `Executor`.

    A run that a worker took ends here as one that another process has, and is seen as such.

    Args:
        jobs: where workers are queued; None where somebody else starts them.
        most: workers at a time.
        folder: where they print to.
        known: workers of an earlier command that are queued or run still.
    """

    def __init__(
        self, jobs: Slurm | Ray | None, most: int, folder: Path, known: Collection[str] = ()
    ) -> None:
        self.capacity = 0 if jobs is None else most
        self._jobs = jobs
        self._folder = folder
        self._waiting: dict[str, RunFolder] = {}
        self._cancelled: list[str] = []
        self._alive = dict.fromkeys(known, -math.inf)
        """When each job was submitted."""
        self._looked = 0.0
        self._refused: float | None = None
        """Since when no worker could be queued; None where the last one was."""
        self._accepted = bool(known)
        self._vain: list[float] = []
        """When jobs that ended at once were submitted, since a run was taken last."""

    def start(self, run: PlannedRun, folder: Path) -> None:
        """Have a worker for a run, if there may be one more."""
        self._waiting[run.config.run_id] = RunFolder(folder)
        if len(self._alive) < self.capacity:
            self._submit()

    def _submit(self) -> bool:
        """Queue a worker; return whether that was done, where it once was and will be again.

        Raises:
            OSError: none was ever queued, or none for a long time in which none was left.
        """
        assert self._jobs is not None, "without a queue there is no capacity"
        now = time.monotonic()
        try:
            self._alive[self._jobs.submit()] = now
        except OSError as error:
            since = now if self._refused is None else self._refused
            if not self._accepted or (not self._alive and now - since > PATIENT_SECONDS):
                raise
            if self._refused is None:
                warnings.warn(
                    f"no worker could be queued, which is tried again: {error}", stacklevel=2
                )
            self._refused = since
            return False
        self._accepted, self._refused = True, None
        return True

    def poll(self, seconds: float) -> Sequence[tuple[str, Message]]:
        """Wait, and tell which runs were taken; one that waits in the queue is no silent one."""
        time.sleep(seconds)
        told: list[tuple[str, Message]] = [(one, Ended("interrupted")) for one in self._cancelled]
        self._cancelled = []
        now = time.monotonic()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            for run_id, folder in list(self._waiting.items()):
                if folder.is_claimed() or folder.record() is not None:
                    del self._waiting[run_id]
                    self._vain = []
                    told.append((run_id, Ended("claimed")))
            self._look(now)
        return [*told, *((run_id, None) for run_id in self._waiting)]

    def _look(self, now: float) -> None:
        """See which jobs ended, and queue others while runs wait.

        Raises:
            OSError: jobs end at once, one after the other.
        """
        if self._jobs is None:
            return
        living = self._jobs.living(self._alive)
        for gone in self._alive.keys() - living:
            submitted = self._alive.pop(gone)
            if now - submitted < AT_ONCE_SECONDS:
                self._vain.append(submitted)
        tried = now - min(self._vain, default=now)
        if self._waiting and len(self._vain) > 2 * self.capacity and tried > AT_ONCE_SECONDS:
            raise OSError(
                f"{len(self._vain)} workers ended at once and took no run; what they said is in "
                f"{self._folder}"
            )
        while len(self._alive) < min(self.capacity, len(self._waiting)) and self._submit():
            pass

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """Wait for a run no longer. Jobs go on with what they have, and leave when idle."""
        if self._waiting.pop(run_id, None) is not None and not at_once:
            self._cancelled.append(run_id)

    def close(self, tell: Callable[[str], None]) -> None:
        """Nobody asks any more: tasks of Ray end with this process, and save their runs first.

        `tell` takes what is worth a line. Jobs of Slurm go on, and leave when idle.
        """
        if isinstance(self._jobs, Ray):
            self._jobs.leave(tell)


def queue_on(
    where: str, study: Path, name: str, folders: Folders, cluster: Cluster, options: Sequence[str]
) -> Queue:
    """Return what has workers started on `workers` (by somebody else), `slurm` or `ray`.

    They are given the options, and those of the cluster's table, which hold where both are there.

    Raises:
        ValueError: what it needs is not installed here.
    """
    folder = folders.root.absolute() / JOBS
    places = {"out": folders.root, "results": folders.results, "cache": folders.cache}
    named = [part for key, path in places.items() for part in (f"--{key}", str(path.absolute()))]
    command = [*cluster.command, "work", str(study.absolute()), *named, "--until-idle"]
    if cluster.time_limit is not None:
        command += ["--time-limit", f"{cluster.time_limit:g}"]
    command += [*options, *cluster.arguments]
    if where == "slurm":
        jobs = Slurm(command, cluster, name, folder)
        known = jobs.living([path.stem for path in folder.glob("*.txt")])
        return Queue(jobs, cluster.jobs, folder, known)
    return Queue(Ray(command, cluster, folder) if where == "ray" else None, cluster.jobs, folder)


class Slurm:
    """Jobs of Slurm, by its own commands. What each prints to is there from when it is queued."""

    def __init__(self, command: Sequence[str], cluster: Cluster, name: str, folder: Path) -> None:
        storage.make_folder(folder)
        self._folder = folder
        options: dict[str, str | int | bool] = {
            "job-name": f"isoflop-{name}",
            "output": str(folder / "%j.txt"),
        }
        if cluster.time_limit is not None:
            options["time"] = math.ceil(cluster.time_limit)
        options |= {key.replace("_", "-"): value for key, value in cluster.slurm.items()}
        given = {key: value for key, value in options.items() if value is not False}
        flags = [f"--{key}" + ("" if v is True else f"={v}") for key, v in given.items()]
        # The worker takes the place of the shell, so that it hears the signals itself.
        self._submission = ["sbatch", "--parsable", *flags, f"--wrap=exec {shlex.join(command)}"]

    def submit(self) -> str:
        """Queue a worker and return its id; a ValueError or OSError where Slurm refuses."""
        job = _said(self._submission).strip().partition(";")[0]
        (self._folder / f"{job}.txt").touch()
        return job

    def living(self, ids: Collection[str]) -> set[str]:
        """Return which of these are queued or run; all, while the queue cannot be seen."""
        if not ids:
            return set()
        try:
            seen = _said(["squeue", "--noheader", "--format=%A", f"--user={getpass.getuser()}"])
        except OSError:
            return set(ids)
        return set(seen.split()) & set(ids)


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ValueError(
            f"there is no command {command[0]} here; --on slurm needs a machine of the cluster "
            "that jobs can be submitted from"
        ) from None
    if done.returncode:
        raise OSError(f"{command[0]} failed: {' '.join(done.stderr.split())}")
    return done.stdout


class Ray:
    """Tasks of a Ray cluster that runs; they end with this process."""

    def __init__(self, command: Sequence[str], cluster: Cluster, folder: Path) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError("--on ray needs Ray: pip install 'isoflop[ray]'") from None
        self._ray: Any = ray
        if not ray.is_initialized():
            try:
                ray.init(address=cluster.ray.address, log_to_driver=False)
            except ConnectionError as error:
                raise ValueError(
                    f"no Ray cluster runs at {cluster.ray.address!r} ({error}); start one with "
                    "`ray start --head`, or name it under [cluster.ray]"
                ) from None
        needs = {"num_cpus": cluster.ray.num_cpus, "num_gpus": cluster.ray.num_gpus}
        self._task = self._ray.remote(max_retries=0, **needs)(_worker)
        storage.make_folder(folder)
        self._command, self._folder = list(command), folder
        self._tasks: dict[str, Any] = {}

    def submit(self) -> str:
        """Queue a worker and return its id."""
        task = self._task.remote(self._command, str(self._folder))
        self._tasks[task.hex()] = task
        return str(task.hex())

    def living(self, ids: Collection[str]) -> set[str]:
        """Return which of these are queued or run."""
        asked = [self._tasks[one] for one in ids]
        if not asked:
            return set()
        ended, under_way = self._ray.wait(asked, num_returns=len(asked), timeout=0)
        for task in ended:
            del self._tasks[str(task.hex())]
        return {str(task.hex()) for task in under_way}

    def leave(self, tell: Callable[[str], None]) -> None:
        """Have workers save their runs and end, and wait for it."""
        tasks = [self._tasks[one] for one in self.living(list(self._tasks))]
        if not tasks:
            return
        tell(f"{len(tasks)} tasks of Ray save their runs, in {LEAVING_SECONDS:g} s at most")
        for task in tasks:
            self._ray.cancel(task)
        _, left = self._ray.wait(tasks, num_returns=len(tasks), timeout=LEAVING_SECONDS)
        if left:
            tell(f"warning: {len(left)} of them did not, and go back to their last checkpoints")


def _worker(command: Sequence[str], folder: str) -> int:
    """Run a worker in a process of its own, which hears when the task is cancelled."""
    with open(f"{folder}/{socket.gethostname()}-{os.getpid()}.txt", "ab") as said:
        try:
            process = subprocess.Popen(command, stdout=said, stderr=said)
        except OSError as error:
            said.write(f"{command[0]} cannot be started here: {error}\n".encode())
            raise
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait()
