"""The table `[cluster]`: how workers are started, in a file beside the study or of the user."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import Field

from isoflop.config.load import read, validated
from isoflop.frozen import Frozen

FILE = "cluster.toml"


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
    """Options of sbatch by their long names, such as `partition`; true for one without a value."""
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
