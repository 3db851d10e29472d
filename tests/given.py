"""What tests of several rooms take as given: an environment, a recipe, records, a flipped bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from isoflop.config import (
    AdamW,
    Environment,
    Evaluation,
    ModelConfig,
    Recipe,
    RunConfig,
    RunRecord,
    decisions,
)
from isoflop.costs import forward_flops, parameters
from isoflop.planning import achieved_flops

ENVIRONMENT = Environment(
    isoflop="0",
    torch="0",
    python="0",
    machine="test",
    device="cpu",
    threads=1,
    compiled=False,
    code="0",
)

RECIPE = Recipe(
    learning_rate=8e-3,
    reference_width=16,
    reference_blocks=2,
    warmup_fraction=0.1,
    final_fraction=0.0,
    optimiser=AdamW(beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1),
    gradient_clip=1.0,
    router_rate=1.0,
    embedding_scale=1.0,
    router_scale=0.02,
    precision="fp32",
)
"""Every field is named, so that a change of the defaults is no change of what is tested."""

FP32 = Recipe(precision="fp32")
"""The default recipe of a run, quick on every processor."""

WORDS = ("the", "a", "state", "of", "union", "law", "peace", "we", "our", "year", "war", "shall")


def small_model(**changes: Any) -> ModelConfig:
    """Return a model of two blocks of width 16, but for what is changed."""
    known = {"vocabulary": 256, "width": 16, "blocks": 2, "heads": 2, "head_width": 8, "hidden": 24}
    return ModelConfig(**{**known, **changes})


def write_words(folder: Path, files: int) -> Path:
    """Write a new folder of so many texts of 60 words, always the same, and return it."""
    import torch

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for index in range(files):
        chosen = torch.randint(len(WORDS), (60,), generator=generator).tolist()
        (folder / f"{index:02}.txt").write_text(" ".join(WORDS[i] for i in chosen))
    return folder


def record_of(
    config: RunConfig,
    loss: float | Literal["usual"] | None = "usual",
    state: str = "finished",
    **changes: object,
) -> RunRecord:
    """Return an outcome; the usual loss is lowest at 12,000 parameters, None leaves no losses."""
    if loss == "usual":
        loss = 1 + abs(math.log(parameters(config.model).total / 12000))
    length, flops = config.data.sequence_length, achieved_flops(config)
    evaluated = loss is not None and state == "finished"
    fields = {
        "run_id": config.run_id,
        "state": state,
        "config": config,
        "parameters": parameters(config.model),
        "forward_flops": forward_flops(config.model, length, config.convention).per_token,
        "train_flops": {"causal": flops, "full": flops, "6nd": flops},
        "seconds": 1.0,
        "train_loss": loss,
        "evaluations": [
            Evaluation(split=split, decision=decision, loss=loss, bits_per_byte=loss, tokens=512)
            for split in ("validation", "test")
            for decision in decisions(config.model.depth)
            if evaluated
        ],
        "data_sha256": "0" * 64,
        "environment": ENVIRONMENT,
    }
    return RunRecord.model_validate(fields | changes)


def flip(path: Path, bit: int = 3) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit
    path.write_bytes(data)
