"""Cores and memory are what the system has and control groups of both versions leave of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.hardware import UsableCores, cores, free_memory, usable_cores


class Groups:
    """A made-up mount of control groups, and the file that tells this process's."""

    def __init__(self, folder: Path) -> None:
        self.mount = folder / "cgroup"
        self.mount.mkdir()
        self.membership = folder / "self"

    def member(self, *lines: str) -> None:
        self.membership.write_text("".join(f"{line}\n" for line in lines))

    def put(self, name: str, text: str) -> None:
        path = self.mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")

    def quota(self) -> float | None:
        return usable_cores(self.mount, self.membership).quota

    def free(self, available: int) -> float:
        """Return the free memory, of which the system has so many KiB."""
        system = self.mount.parent / "meminfo"
        system.write_text(f"MemTotal:  9999999 kB\nMemAvailable:  {available} kB\n")
        return free_memory(system, self.mount, self.membership)


@pytest.fixture
def groups(tmp_path: Path) -> Groups:
    return Groups(tmp_path)


def test_version_2_takes_the_tightest_limit_up_to_the_root(groups: Groups) -> None:
    groups.member("0::/pod/box")
    groups.put("pod/box/cpu.max", "400000 100000")
    assert groups.quota() == 4
    groups.put("pod/cpu.max", "150000 100000")
    assert groups.quota() == 1.5
    groups.put("pod/cpu.max", "max 100000")
    groups.put("cpu.max", "50000 25000")
    assert groups.quota() == 2


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1_has_quota_and_period_in_files_of_their_own(groups: Groups, mount: str) -> None:
    groups.member("5:memory:/other", "4:cpu,cpuacct:/pod", "1:name=systemd:/", "0::/")
    groups.put(f"{mount}/pod/cpu.cfs_quota_us", "250000")
    groups.put(f"{mount}/pod/cpu.cfs_period_us", "100000")
    groups.put("memory/other/cpu.cfs_quota_us", "1")
    groups.put("memory/other/cpu.cfs_period_us", "1")
    assert groups.quota() == 2.5
    groups.put(f"{mount}/pod/cpu.cfs_quota_us", "-1")
    assert groups.quota() is None


def test_in_a_container_the_path_may_be_the_host_s(groups: Groups) -> None:
    groups.member("0::/system.slice/docker-1234.scope")
    groups.put("cpu.max", "300000 100000")
    assert groups.quota() == 3


def test_what_cannot_be_read_limits_nothing(groups: Groups) -> None:
    assert groups.quota() is None
    groups.member("0::/pod", "nonsense", "7:cpuset:/pod", "3:cpu:/pod")
    groups.put("pod/cpu.max", "not a number")
    assert groups.quota() is None


@pytest.mark.parametrize(
    ("affinity", "quota", "count"),
    [(8, None, 8), (8, 2.0, 2), (8, 2.9, 2), (2, 16.0, 2), (4, 0.5, 1), (1, 1.0, 1)],
)
def test_whole_cores_at_least_one(affinity: int, quota: float | None, count: int) -> None:
    assert UsableCores(affinity, quota).count == count


def test_words() -> None:
    assert UsableCores(2, None).words == "2 cores may be used (affinity 2, cgroup quota none)"
    assert UsableCores(8, 1.5).words == "1 core may be used (affinity 8, cgroup quota 1.5)"


def test_affinity_is_the_process_s(monkeypatch: pytest.MonkeyPatch, groups: Groups) -> None:
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert usable_cores(groups.mount, groups.membership).affinity == 3
    monkeypatch.delattr(cores.os, "sched_getaffinity")
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 6)
    assert usable_cores(groups.mount, groups.membership).affinity == 6


def test_memory_is_what_the_tightest_group_leaves_but_for_what_it_can_give_up(
    groups: Groups,
) -> None:
    groups.member("0::/job/step", "4:memory:/job")
    for name, limit, used, spare in (
        ("job/step", "max", 5000, 0),
        ("job", "9000", 5000, 1000),
        ("", "100000", 5000, 0),
    ):
        groups.put(f"{name}/memory.max", limit)
        groups.put(f"{name}/memory.current", str(used))
        groups.put(f"{name}/memory.stat", f"anon 1\ninactive_file {spare}")
    assert groups.free(100) == 5000
    assert groups.free(2) == 2048
    groups.put("memory/job/memory.limit_in_bytes", "7000")
    groups.put("memory/job/memory.usage_in_bytes", "6000")
    groups.put("memory/job/memory.stat", "inactive_file 7\ntotal_inactive_file 500")
    assert groups.free(100) == 1500
    groups.put("memory/job/memory.usage_in_bytes", "8000")
    assert groups.free(100) == 0


def test_memory_without_a_system_or_groups_that_tell_is_unlimited(groups: Groups) -> None:
    groups.member("0::/job")
    groups.put("job/memory.max", "1000")
    assert free_memory(groups.mount / "none", groups.mount, groups.membership) == float("inf")
