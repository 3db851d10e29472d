"""Control groups of Linux: those that limit this process, of both versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
"""Where control groups are mounted; of version 1 each controller in a folder of its own."""
MEMBERSHIP = Path("/proc/self/cgroup")
"""The groups of this process: a line `NUMBER:CONTROLLERS:PATH` for each hierarchy."""


def groups(controller: str, cgroups: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """Yield this process's groups that may limit by a controller, and all that they are in.

    Each with its version. Folders need not exist: in a container a path may be that of the host.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mounts, version = (cgroups, cgroups / "unified"), 2
        elif controller in controllers.split(","):
            mounts, version = (cgroups / controllers, cgroups / controller), 1
        else:
            continue
        for mount in mounts:
            group = mount / path.lstrip("/")
            while group != mount and mount in group.parents:
                yield group, version
                group = group.parent
            yield mount, version
