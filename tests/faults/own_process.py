"""How a run is trained in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isoflop.config import RunConfig
from isoflop.runs import RunFolder


def train_small(
    config: RunConfig,
    folder: Path,
    cache: Path,
    checkpoint_seconds: float = 0.0,
    watch: Callable[[Any], None] = lambda _: None,
) -> None:
    """Train a run, by default with a checkpoint after each step; a target for `start`."""
    from isoflop.training import train

    train(
        config,
        RunFolder(folder),
        cache=cache,
        threads=1,
        compiled=False,
        checkpoint_seconds=checkpoint_seconds,
        watch=watch,
    )


def train_small_and_pause(config: RunConfig, folder: Path, cache: Path, step: int) -> None:
    """Train a run and stop in it, by SIGSTOP, before the checkpoint of `step`."""

    def pause(progress: Any) -> None:
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGSTOP)

    train_small(config, folder, cache, watch=pause)
