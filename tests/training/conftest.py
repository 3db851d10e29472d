"""A small corpus on disk, and runs on it that take a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from given import RECIPE
from isoflop.config import DataConfig, Depth, EveryToken, ModelConfig, RunConfig

WORDS = ("the", "a", "state", "of", "union", "law", "peace", "we", "our", "year", "war", "shall")


MakeRun = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(40):
        chosen = torch.randint(len(WORDS), (60,), generator=generator).tolist()
        (folder / f"{index:02}.txt").write_text(" ".join(WORDS[i] for i in chosen))
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def make_run(corpus: Path) -> MakeRun:
    def make(depth: Depth | None = None, steps: int = 12, **recipe: object) -> RunConfig:
        return RunConfig(
            model=ModelConfig(
                vocabulary=256,
                width=16,
                blocks=4,
                heads=2,
                head_width=8,
                hidden=24,
                depth=depth or EveryToken(),
            ),
            data=DataConfig(corpus=str(corpus), sequence_length=16),
            recipe=RECIPE.model_copy(update=recipe),
            steps=steps,
            sequences_per_step=3,
            evaluation_tokens=200,
        )

    return make
