"""What trains runs for the scheduler, wherever that is: the local pool is the first.

An executor starts runs, says what they tell, and ends them. What a run is tried for, and when, is
the scheduler's to say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from isoflop.config import AttentionKernel, Recompute
from isoflop.hardware import usable_cores
from isoflop.memory import MicroBatch
from isoflop.planning import PlannedRun
from isoflop.runs import Progress

LOG = "log.txt"
"""File in the run folder that takes what the run's processes print."""


@dataclass(frozen=True)
class Ended:
    """The last message of a run."""

    how: Literal["recorded", "interrupted", "claimed", "failed", "unwritable"]
    """With a record, as asked, as another process has the run, by an exception or a crash, or
    because the disk is full or broken, which is no fault of the run."""
    reason: str = ""


Message = Progress | str | Ended | None
"""Where a run stands, a warning that it gave, its end, or nothing but a sign of life."""


class Executor(Protocol):
    """Trains some runs at a time."""

    @property
    def capacity(self) -> int:
        """Runs that are trained at a time."""

    def start(self, run: PlannedRun, folder: Path) -> None:
        """Start training a run in its folder; fewer than `capacity` are under way."""

    def poll(self, seconds: float) -> Sequence[tuple[str, Message]]:
        """Wait so long at most for what runs tell, and return it by run id.

        A run tells `Ended` last, whatever became of it; then it is no longer under way.
        """

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """Ask a run to save a checkpoint and end; or end it at once, and then it tells no more."""


STALL_SECONDS = 1800.0
"""Silence after which a run counts as hanging. A run gives a sign after each step and each batch
that it evaluates; the longest silence is the first step, which compiles, and may take minutes."""


@dataclass(frozen=True)
class Shift:
    """How long one worker of several on a study stays. It takes the longest free run first."""

    seconds: float | None = None
    """Until it is to be gone, with a checkpoint; None for no limit."""
    until_idle: bool = False
    """Whether it leaves once nothing is free, in place of waiting for what others may leave."""
    mixed: bool = False
    """Whether it works on runs beside those of other versions, which their records tell."""
    begun: float = field(default_factory=time.monotonic, compare=False)
    """When its seconds began, before anything was prepared."""

    @property
    def working_seconds(self) -> float | None:
        """Time until it saves checkpoints and leaves; None for no limit."""
        if self.seconds is None:
            return None
        return self.seconds - min(LEAVING_SECONDS, self.seconds / 4)


LEAVING_SECONDS = 60.0
"""Most time kept for a step, a checkpoint and the end of a process before a limit."""


@dataclass(frozen=True)
class Execution:
    """How runs are trained, which is no part of what they are."""

    workers: int | None = None
    """Runs trained at a time; None for one per `threads` cores, or for as many per CUDA device as
    measurements say."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Of each run on the CPU."""
    compiled: bool | None = None
    """Whether torch.compile is used; None decides for each run."""
    checkpoint_seconds: float | None = None
    """Time between checkpoints of a run; None as in `isoflop.training.train`."""
    memory_bytes: int | None = None
    """Limit of the memory of each run on a CPU; None for none."""
    stall_seconds: float = STALL_SECONDS
    """Silence after which a run counts as hanging; that attempt then failed."""
    micro_batch_tokens: MicroBatch = "auto"
    """Tokens of a step that a run holds at a time; a run that was started keeps its own."""
    recompute: Recompute | Literal["auto"] = "auto"
    """What blocks compute again in their backward pass; likewise."""
    attention_kernel: AttentionKernel | Literal["auto"] | None = "auto"
    """What attends all keys, as in `isoflop.training.train`; likewise."""
    shares_up_to: float | None = None
    """Largest budget of runs that share their first steps; the study's own where it asks for that,
    None for none."""
    shift: Shift | None = None
    """Of one worker of several; None for whoever trains a study to its end."""
    executor: Executor | None = None
    """What trains the runs in place of processes of this machine."""

    def slots(self) -> list[dict[str, str]]:
        """Return the environment variables of each worker that may run at a time.

        Raises:
            ValueError: a value is out of its range, or there is no such device.
        """
        for name in ("workers", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
        if self.device == "cpu":
            at_once = self.workers or max(1, usable_cores().count // self.threads)
            found: list[dict[str, str]] = [{}] * at_once
        else:
            found = _cuda_slots(self.workers)
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise ValueError(f"the limit of memory is {self.memory_bytes} bytes; expected more")
        if self.memory_bytes is not None and self.device != "cpu":
            raise ValueError("a limit of memory is for runs on the CPU; leave --memory-gib out")
        if not self.stall_seconds > 0:
            raise ValueError(
                f"the longest silence of a run is {self.stall_seconds} s; expected more"
            )
        return found

    @property
    def alone(self) -> bool:
        """Whether the processes of this machine are to train all of a study."""
        return self.executor is None and self.shift is None

    @property
    def picks_sharing(self) -> bool:
        """Whether it is to be measured how many runs share a CUDA device."""
        return self.alone and self.device == "cuda" and self.workers is None


def _cuda_slots(workers: int | None) -> list[dict[str, str]]:
    import torch

    devices = torch.cuda.device_count()
    if not devices:
        raise ValueError("device is 'cuda', but torch sees no CUDA device; use --device cpu")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(devices)))
    names = visible.split(",")[:devices]
    return [{"CUDA_VISIBLE_DEVICES": names[i % devices]} for i in range(workers or devices)]
