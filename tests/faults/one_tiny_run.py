"""A run of a moment on a corpus of its own, and what makes two runs of it the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from given import RECIPE
from isoflop import checkpoint
from isoflop.config import DataConfig, ModelConfig, RunConfig, TopK
from isoflop.runs import RunFolder

WORDS = ("the", "a", "state", "of", "union", "law", "peace", "we", "our", "year", "war", "shall")


def tiny_run(place: Path, steps: int = 6, **changes: object) -> RunConfig:
    """Return a routed run of two blocks; its corpus is written into `place`."""
    corpus = place / "corpus.txt"
    chosen = torch.randint(len(WORDS), (2000,), generator=torch.Generator().manual_seed(0))
    words = [WORDS[index] for index in chosen.tolist()]
    corpus.write_text("\n\n".join(" ".join(words[at : at + 50]) for at in range(0, 2000, 50)))
    fields: dict[str, Any] = {
        "model": ModelConfig(
            vocabulary=256,
            width=16,
            blocks=2,
            heads=2,
            head_width=8,
            hidden=24,
            depth=TopK(capacity=0.25),
        ),
        "data": DataConfig(corpus=str(corpus), sequence_length=12),
        "recipe": RECIPE,
        "steps": steps,
        "sequences_per_step": 3,
        "evaluation_tokens": 100,
    }
    return RunConfig.model_validate(fields | changes)


def assert_same_run(found: RunFolder, expected: RunFolder) -> None:
    """Hold last state, metrics and record bitwise equal, but for what a clock measured."""
    states = [checkpoint.latest(run.checkpoints) for run in (found, expected)]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0].tensors.keys() == states[1].tensors.keys()
    for name, tensor in states[1].tensors.items():
        assert torch.equal(states[0].tensors[name], tensor), name
    rows = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in run.read_metrics()[0]]
        for run in (found, expected)
    ]
    assert rows[0] == rows[1]
    assert [row["step"] for row in rows[0]] == list(range(1, len(rows[0]) + 1))
    records = [run.record() for run in (found, expected)]
    assert records[0] is not None
    assert records[1] is not None
    timeless = [one.model_copy(update={"seconds": 0.0, "attempts": 1}) for one in records if one]
    assert timeless[0] == timeless[1]
