"""Rows 12 to 15, 19 and 20 on every executor: whoever starts workers, the study ends the same.

No worker knows another but by the study's folder: leases alone tell who lives, as between machines,
and each has a clock that is an hour off, one way or the other.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS, ended, second_rank, start, wait_for
from test_workers import place, undisturbed

from isoflop import storage
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, RunStore
from outcomes import assert_same_run, assert_whole
from sweep_studies import LONGER, brief, write_corpus

TOOLS = Path(__file__).parents[2] / "tools" / "cluster"
COMMAND = [sys.executable, "-m", "isoflop"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
APART = """
import os, random, time
from isoflop.runs import claim
for name, seconds in {"LEASE": 4.0, "RENEW": 0.5, "WATCH": 2.0, "TRUST": 1.0}.items():
    setattr(claim, f"{name}_SECONDS", seconds)
claim._place = lambda device: os.urandom(4).hex()
right, off = time.time, random.choice((-3600, 3600))
time.time = lambda: right() + off
"""
"""What every Python of a worker does first: read as `sitecustomize`."""


class Site:
    """A study of one minute, and how it is trained on an executor."""

    def __init__(self, folder: Path, where: str, table: str = "") -> None:
        self.folder, self.where = folder, where
        self.study = brief(write_corpus(folder / "text.txt"), budget=64 * LONGER)
        self.longest = next_runs(self.study, [])[0].config.run_id
        self.store, self.said = place(folder, self.study), folder / "said.txt"
        (folder / "apart").mkdir()
        (folder / "apart" / "sitecustomize.py").write_text(APART)
        path = os.pathsep.join([str(folder / "apart"), *filter(None, sys.path)])
        self.environ = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        command = ["env", f"PYTHONPATH={path}", *COMMAND]
        (folder / "cluster.toml").write_text(f"[cluster]\njobs = 2\n{command = }\n{table}")
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Give the command, or for `work` the two commands, that train the study."""
        how = {"run": ["run", "--workers", "2"], "work": ["work"]}
        given = [*COMMAND, *how.get(self.where, ["run", "--on", self.where]), "study.json"]
        for _ in range(2 if self.where == "work" else 1):
            self.started.append(self.call(given))

    def call(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.said.open("ab") as said:
            how = {"cwd": self.folder, "env": self.environ, "stdout": said, "stderr": said}
            return subprocess.Popen(command, **how)

    def trainer(self) -> tuple[RunFolder, int]:
        """Wait until a run is well under way; return it and the process that trains it."""
        found: list[tuple[RunFolder, int]] = []

        def look() -> bool:
            for folder in self.store.folders():
                if len(folder.read_metrics()[0]) > 20 and folder.record() is None:
                    found.extend((folder, pid) for pid in opened(folder.path))
            return bool(found)

        wait_for(look)
        return found[0]

    def kill(self) -> None:
        """Kill what was started, none of what that has started."""
        while self.started:
            one = self.started.pop()
            one.kill()
            one.wait()

    def end(self, other: str = "") -> None:
        """Train to the end, and compare; run `other` has begun on another number of ranks."""
        for one in self.started:
            assert one.wait(PATIENCE_SECONDS) == 0, self.said.read_text()
        assert "Traceback" not in self.said.read_text()
        assert ended(start(undisturbed, self.study, self.folder)) == 0
        right = RunStore(self.folder / "right")
        assert [a.path.name for a in self.store.folders()] == [a.path.name for a in right.folders()]
        for expected in right.folders():
            name = expected.path.name
            same = assert_begun_alike if name == other else assert_same_run
            same(self.store.folder(name), expected)


def assert_begun_alike(found: RunFolder, expected: RunFolder) -> None:
    """Check steps and first losses: over thousands of steps what rounding differs by grows."""
    rows, right = ([*one.read_metrics()[0]] for one in (found, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in right]
    first = [row["loss"] for row in right[:20]]
    assert [row["loss"] for row in rows[:20]] == pytest.approx(first, rel=1e-5)
    record = found.record()
    assert record is not None
    assert record.state == "finished"


def opened(folder: Path) -> list[int]:
    """Return the processes that hold a claim of a run's folder open."""
    found = []
    for path in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(path).startswith(str(folder / "claim-")):
                found.append(int(path.parts[2]))
    return found


@pytest.fixture(params=["run", "work", "slurm", "ray"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    table, where, cluster = "", request.param, None
    if where == "slurm" and (not shutil.which("sinfo") or subprocess.call(["sinfo"])):
        pytest.skip("needs Slurm: see tools/cluster/slurm, which says what to install")
    if where == "ray":
        pytest.importorskip("ray", reason="needs Ray: pip install ray")
        cluster, _ = runpy.run_path(str(TOOLS / "ray"))["two_nodes"]()
        table = f'[cluster.ray]\naddress = "{cluster.address}"\n'
    made = Site(tmp_path, where, table)
    yield made
    made.kill()
    if where == "slurm":
        subprocess.run(["scancel", "--name", f"isoflop-{made.study.name}"], check=True)
    if cluster is not None:
        cluster.shutdown()


@pytest.mark.slow
def test_row_12_workers_and_who_started_them_are_killed(site: Site) -> None:
    site.start()
    folder, pid = site.trainer()
    os.kill(pid, signal.SIGKILL)
    site.kill()
    site.start()
    site.end()
    assert folder.attempts > 1


@pytest.mark.slow
def test_row_13_two_commands_share_the_runs(site: Site) -> None:
    site.start()
    site.start()
    site.end()
    assert {one.attempts for one in site.store.folders()} == {1}
    assert_whole(site.store)


@pytest.mark.slow
def test_row_14_an_owner_that_wakes_up_commits_nothing_over_the_new_one(site: Site) -> None:
    site.start()
    folder, pid = site.trainer()
    os.kill(pid, signal.SIGSTOP)
    try:
        site.start()
        wait_for(lambda: folder.record() is not None)
        kept = (folder.path / "record.json").read_bytes()
    finally:
        os.kill(pid, signal.SIGCONT)
    site.end()
    assert folder.attempts == 2
    assert (folder.path / "record.json").read_bytes() == kept


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["row 19", "row 20"])
def test_rows_19_and_20_what_two_ranks_left_is_ended_by_one(site: Site, number: int) -> None:
    """Asked to stop, or one of them killed."""
    train = ["train", "study.json", site.longest, "--threads", "1"]
    launcher = [*TORCHRUN, "--max-restarts=0", "-m", "isoflop"]
    if site.where == "slurm":
        launcher = ["srun", "--ntasks=2", "--overcommit", *COMMAND]
    ranks = site.call([*launcher, *train])
    folder, lead = site.trainer()
    os.kill(second_rank(site.longest), number)
    assert ranks.wait(PATIENCE_SECONDS) != 0
    wait_for(lambda: not Path(f"/proc/{lead}").exists())
    assert folder.state() == ("preempted" if number == signal.SIGTERM else "interrupted")
    for saved in folder.checkpoints.glob("step-*"):
        storage.verify_folder(saved)
    assert not list(folder.path.rglob(storage.TEMPORARY + "*"))
    site.said.unlink()
    site.start()
    site.end(other=site.longest)
    record = folder.record()
    assert record is not None
    assert record.environment.ranks == 2
    assert [one.ranks for one in record.resumed_under] == [1]
