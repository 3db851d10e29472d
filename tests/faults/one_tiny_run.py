"""A run of a moment on a corpus of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from given import RECIPE
from isoflop.config import DataConfig, ModelConfig, RunConfig, TopK

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
