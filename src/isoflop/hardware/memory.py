"""Memory of the machine that is free to this process, by the system and by control groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from isoflop.hardware.cgroups import CGROUPS, MEMBERSHIP, groups

MEMINFO = Path("/proc/meminfo")
FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""Of a control group's version: its limit, what is used, and what of that can be given up."""


def free_memory(
    meminfo: Path = MEMINFO, cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP
) -> float:
    """Return the bytes that this process can still take; infinity where nothing tells."""
    return max(0.0, min(_free(meminfo, cgroups, membership), default=float("inf")))


def _free(meminfo: Path, cgroups: Path, membership: Path) -> Iterator[float]:
    with suppress(OSError, KeyError, ValueError):
        yield 1024.0 * int(_table(meminfo)["MemAvailable:"])
    for group, version in groups("memory", cgroups, membership):
        # Groups may be hidden or vanish, and a limit may be `max`: neither limits anything.
        with suppress(OSError, KeyError, ValueError):
            limit, used, spare = FILES[version]
            held = int((group / used).read_text()) - int(_table(group / "memory.stat")[spare])
            yield float(int((group / limit).read_text()) - held)


def _table(path: Path) -> dict[str, str]:
    return dict(line.split()[:2] for line in path.read_text().splitlines())
