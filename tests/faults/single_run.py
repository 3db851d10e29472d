"""One small run of a routed model on a corpus of its own, and how it is trained in a process."""

from __future__ import annotations

from pathlib import Path

from given import RECIPE
from isoflop.config import DataConfig, ModelConfig, RunConfig, TopK
from isoflop.runs import RunFolder
from sweep_studies import write_corpus


def small_run(folder: Path, steps: int = 60) -> RunConfig:
    """Return a run of well under a second on a corpus that is written to `folder`."""
    corpus = write_corpus(folder / "text.txt")
    return RunConfig(
        model=ModelConfig(
            vocabulary=256,
            width=16,
            blocks=4,
            heads=2,
            head_width=8,
            hidden=24,
            depth=TopK(capacity=0.25),
        ),
        data=DataConfig(corpus=str(corpus), sequence_length=16),
        recipe=RECIPE,
        steps=steps,
        sequences_per_step=3,
        evaluation_tokens=200,
    )


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
