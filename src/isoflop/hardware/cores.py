"""The processor: its name, and the cores that may really be used, by affinity and cgroup quota.

In a container the machine may have many more of them than a quota lets run at a time.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from isoflop.hardware.cgroups import CGROUPS, MEMBERSHIP, groups


@dataclass(frozen=True)
class UsableCores:
    """How many cores may be used, and why."""

    affinity: int
    """Cores that the scheduler may put this process on."""
    quota: float | None
    """Cores' worth of time that its control group may take; None for no limit."""

    @property
    def count(self) -> int:
        """Whole cores, at least one."""
        return self.affinity if self.quota is None else max(1, min(self.affinity, int(self.quota)))

    @property
    def words(self) -> str:
        """The count and where it comes from."""
        cores = "1 core" if self.count == 1 else f"{self.count} cores"
        quota = "none" if self.quota is None else f"{self.quota:g}"
        return f"{cores} may be used (affinity {self.affinity}, cgroup quota {quota})"


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> UsableCores:
    """Return the cores that this process may use."""
    told = hasattr(os, "sched_getaffinity")  # macOS has none
    affinity = len(os.sched_getaffinity(0)) if told else os.cpu_count() or 1
    return UsableCores(affinity, min(_quotas(cgroups, membership), default=None))


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Yield the limits of this process's groups and of those that they are in, in cores."""
    for group, version in groups("cpu", cgroups, membership):
        # Groups may be hidden or vanish, and a quota may be `max`: neither limits anything.
        with suppress(OSError, ValueError):
            if version == 2:
                quota, period = map(float, (group / "cpu.max").read_text().split())
            else:
                files = (group / f"cpu.cfs_{name}_us" for name in ("quota", "period"))
                quota, period = (float(file.read_text()) for file in files)
            if quota > 0 and period > 0:
                yield quota / period


def machine() -> str:
    """Return architecture and processor model."""
    return f"{platform.machine()} {_processor()}"


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")
