"""A small corpus on disk, and runs on it that take a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from given import RECIPE, small_model, write_words
from isoflop.config import DataConfig, Depth, EveryToken, RunConfig

MakeRun = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_words(tmp_path / "corpus", 40)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_run(corpus: Path) -> MakeRun:
    def make(depth: Depth | None = None, steps: int = 12, **recipe: object) -> RunConfig:
        return RunConfig(
            model=small_model(blocks=4, depth=depth or EveryToken()),
            data=DataConfig(corpus=str(corpus), sequence_length=16),
            recipe=RECIPE.model_copy(update=recipe),
            steps=steps,
            sequences_per_step=3,
            evaluation_tokens=200,
        )

    return make
