"""A tiny run trained by several ranks, of which one may come to harm."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any, Literal

import torch
from one_tiny_run import Tiny

from isoflop import checkpoint
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, follow, joined

PREEMPTED = 143
"""Exit code of ranks that were stopped as asked."""


def train_ranked(
    tiny: Tiny,
    path: Path,
    stop_at: int | None = None,
    strike: tuple[int, int | None] | None = None,
    timeout_seconds: float = 60.0,
    shard: bool | Literal["auto"] = "auto",
) -> int:
    """Train it as one of several ranks, each step with a checkpoint.

    Rank 1 asks all to stop after so many steps of this attempt, or sends a signal to itself
    there: `strike` is the number of steps and the signal, None for memory that runs out.
    """
    made = itertools.count(1)
    with joined("cpu", timeout_seconds) as ranks:

        def stop() -> bool:
            step = next(made)
            if ranks.rank == 1 and strike is not None and step == strike[0]:
                if strike[1] is None:
                    raise MemoryError("no more of it")
                os.kill(os.getpid(), strike[1])
            return ranks.rank == 1 and step == stop_at

        how: Any = {"ranks": ranks, "shard": shard, "stop": stop}
        try:
            if ranks.leads:
                tiny.train(path, 0.0, **how)
            else:
                follow(tiny.config, RunFolder(path), cache=tiny.cache, **how)
        except Interrupted:
            return PREEMPTED
    return 0


def assert_almost_same_run(found: RunFolder, expected: RunFolder) -> None:
    """Check that losses of all steps, weights and evaluations are the same but for rounding."""
    rows, right_rows = ([*folder.read_metrics()[0]] for folder in (found, expected))
    assert [row["step"] for row in rows] == [row["step"] for row in right_rows]
    losses, right = (torch.tensor([row["loss"] for row in some]) for some in (rows, right_rows))
    torch.testing.assert_close(losses, right, rtol=1e-5, atol=0)
    saved, right_saved = (checkpoint.latest(folder.checkpoints) for folder in (found, expected))
    assert saved is not None
    assert right_saved is not None
    for name, tensor in right_saved.tensors.items():
        torch.testing.assert_close(saved.tensors[name], tensor, rtol=1e-3, atol=1e-5)
    records = [folder.record() for folder in (found, expected)]
    assert all(record is not None and record.state == "finished" for record in records)
    ours, theirs = ([one.loss for one in record.evaluations] for record in records if record)
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=0)
