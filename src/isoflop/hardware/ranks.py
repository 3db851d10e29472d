"""Which of several processes this one is, as torchrun or srun tells it in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """One of several processes that train one run."""

    rank: int
    world: int
    """How many there are."""
    local: int
    """Number of this one on its machine."""
    address: str
    """Of the machine of rank 0."""
    port: int


def place(environ: Mapping[str, str] = os.environ) -> Place | None:
    """Return which process this is; None where it was started alone.

    Slurm sets variables for the batch script too, which is no rank: what counts is that this is a
    task of a step, which only srun starts.
    """
    if "RANK" in environ and "WORLD_SIZE" in environ:
        names, address, port = ("RANK", "WORLD_SIZE", "LOCAL_RANK"), "localhost", 29500
    elif "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "localhost")
        steps = 64 * int(environ.get("SLURM_JOB_ID", "0")) + int(environ.get("SLURM_STEP_ID", "0"))
        names = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"
        # Below what systems hand out, and another for each step.
        address, port = _first(nodes), 15000 + steps % 15000
    else:
        return None
    rank, world, local = (int(environ.get(name, "0")) for name in names)
    address, port = environ.get("MASTER_ADDR", address), int(environ.get("MASTER_PORT", port))
    return Place(rank, world, local, address, port) if world > 1 else None


def _first(nodes: str) -> str:
    """Return the first of Slurm's list of machines, such as `gpu[003-005,9],head`."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    assert found is not None, "what may be empty matches anything"
    return "".join(part or "" for part in found.groups())
