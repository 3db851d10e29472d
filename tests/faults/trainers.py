"""Trainers of a study in which something goes wrong with some of the first runs."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from processes import wait_for

from isoflop.config import RunConfig, RunRecord
from isoflop.runs import RunFolder
from isoflop.storage import make_folder
from isoflop.sweep.local.worker import train_run
from sweep_studies import instant, is_large


def short_of_memory(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train, the large run within 2 GiB, of which it wants 4 after its first step."""
    if not is_large(config):
        return instant(config, folder, **options)

    def watch(_: object) -> None:
        import torch

        torch.empty(2**30)

    return train_run(config, folder, **{**options, "memory_bytes": 2**31, "watch": watch})


def exploding(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train runs of a learning rate of their own, with a checkpoint after each step."""
    if config.recipe.learning_rate < 1:
        return instant(config, folder, **options)
    return train_run(config, folder, **{**options, "checkpoint_seconds": 0.0})


def killed_at_one_step(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train; the large run is killed at its fourth step, again and again."""
    if not is_large(config):
        return instant(config, folder, **options)

    def watch(progress: object) -> None:
        if progress.step == 4:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

    return train_run(config, folder, **{**options, "watch": watch})


def hanging(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train in no time; the large run waits for ever, deaf to every wish."""
    if not is_large(config):
        return instant(config, folder, **options)
    with folder.claim():
        folder.create(config)
        folder.begin_attempt(0)
        while True:
            time.sleep(60)


def together(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train, and wait after the first step until two runs are that far: of two schedulers."""
    meeting = Path(str(options["cache"])).parent / "meeting"
    make_folder(meeting)

    def watch(_: object) -> None:
        (meeting / config.run_id).touch()
        wait_for(lambda: len(list(meeting.iterdir())) > 1)

    return train_run(config, folder, **{**options, "watch": watch})
