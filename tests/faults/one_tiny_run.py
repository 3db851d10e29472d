"""A run of a moment on a corpus of its own, trained, stopped, and held against the right one."""

from __future__ import annotations

import itertools
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from given import RECIPE, WORDS, small_model
from isoflop.config import DataConfig, RunConfig, RunRecord, TopK
from isoflop.runs import RunFolder
from isoflop.training import Interrupted, train
from outcomes import assert_same_run


def tiny_run(place: Path, steps: int = 6, **changes: object) -> RunConfig:
    """Return a routed run of two blocks; its corpus is written into `place`."""
    corpus = place / "corpus.txt"
    chosen = torch.randint(len(WORDS), (2000,), generator=torch.Generator().manual_seed(0))
    words = [WORDS[index] for index in chosen.tolist()]
    corpus.write_text("\n\n".join(" ".join(words[at : at + 50]) for at in range(0, 2000, 50)))
    fields: dict[str, Any] = {
        "model": small_model(depth=TopK(capacity=0.25)),
        "data": DataConfig(corpus=str(corpus), sequence_length=12),
        "recipe": RECIPE,
        "steps": steps,
        "sequences_per_step": 3,
        "evaluation_tokens": 100,
    }
    return RunConfig.model_validate(fields | changes)


@dataclass
class Tiny:
    """A tiny run, and how it is trained: in this process, or in another as a target of `start`."""

    config: RunConfig
    place: Path

    @classmethod
    def of(cls, place: Path, steps: int = 6, **changes: object) -> Tiny:
        """Return such a run, whose corpus and prepared data lie in `place`."""
        return cls(tiny_run(place, steps, **changes), place)

    @property
    def cache(self) -> Path:
        """Where its prepared data lies."""
        return self.place / "cache"

    def train(
        self, folder: RunFolder | Path, checkpoint_seconds: float = 30.0, **options: Any
    ) -> RunRecord:
        """Train it in a folder, on one thread."""
        where = RunFolder(folder) if isinstance(folder, Path) else folder
        known = {"cache": self.cache, "threads": 1, "compiled": False}
        options = {**known, "checkpoint_seconds": checkpoint_seconds, **options}
        return train(self.config, where, **options)

    def stop(self, folder: RunFolder, steps: int, **options: Any) -> None:
        """Train it in a folder, and stop after so many steps."""
        made = itertools.count(1)
        with pytest.raises(Interrupted):
            self.train(folder, stop=lambda: next(made) == steps, **options)

    def pause(self, folder: Path, step: int) -> None:
        """Train it with a checkpoint after each step; stop by SIGSTOP before that of `step`."""

        def watch(progress: Any) -> None:
            if progress.step == step:
                os.kill(os.getpid(), signal.SIGSTOP)

        self.train(folder, 0.0, watch=watch)

    def assert_undisturbed(self, *found: RunFolder) -> None:
        """Check that these ended as a run that nothing disturbed."""
        right = RunFolder(self.place / "undisturbed")
        self.train(right)
        for folder in found:
            assert_same_run(folder, right)
