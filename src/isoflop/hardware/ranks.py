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
        found = Place(
            int(environ["RANK"]),
            int(environ["WORLD_SIZE"]),
            int(environ.get("LOCAL_RANK", "0")),
            environ.get("MASTER_ADDR", "localhost"),
            int(environ.get("MASTER_PORT", "29500")),
        )
    elif "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_JOB_NODELIST", "localhost")
        steps = 64 * int(environ.get("SLURM_JOB_ID", "0")) + int(environ.get("SLURM_STEP_ID", "0"))
        found = Place(
            int(environ["SLURM_PROCID"]),
            int(environ["SLURM_STEP_NUM_TASKS"]),
            int(environ.get("SLURM_LOCALID", "0")),
            environ.get("MASTER_ADDR", _first(nodes)),
            # Below what systems hand out, and another for each step.
            int(environ.get("MASTER_PORT", str(15000 + steps % 15000))),
        )
    else:
        return None
    return found if found.world > 1 else None


def _first(nodes: str) -> str:
    """Return the first of Slurm's list of machines, such as `gpu[003-005,9],head`."""
    found = re.match(r"([^\[,]*)(?:\[(\d+)[^\]]*\]([^,]*))?", nodes)
    assert found is not None, "what may be empty matches anything"
    return "".join(part or "" for part in found.groups())
