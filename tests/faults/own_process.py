"""How a run is trained in a process of its own."""

from __future__ import annotations

from pathlib import Path

from isoflop.config import RunConfig
from isoflop.runs import RunFolder


def train_small(
    config: RunConfig, folder: Path, cache: Path, checkpoint_seconds: float = 0.0
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
    )
