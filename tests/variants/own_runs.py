"""Variants of one's own, from the files beside, and tiny runs of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from given import RECIPE, small_model
from isoflop.config import DataConfig, ModelConfig, Own, RunConfig, TopK
from isoflop.config.own import own

FILES = Path(__file__).parent / "files"
PARTS = {"linear": "attention", "parallel": "block", "skip": "depth"}


def named(name: str, **settings: Any) -> dict[str, Own]:
    """Return a file's variant as a field of a model."""
    part = PARTS[name]
    return {part: own(part, f"my_{name}", settings, FILES / f"{name}.py")}  # type: ignore[arg-type]


def shipped(part: str, kind: str, **settings: Any) -> dict[str, Own]:
    """Return a variant that ships through the door as a field of a model."""
    return {part: own(part, kind, settings)}  # type: ignore[arg-type]


def experts(**settings: Any) -> dict[str, Own]:
    """Return four experts, which the load balances over steps too, as a field of a model."""
    known = {"experts": 4, "top_k": 1, "bias_rate": 0.01}
    return shipped("feed_forward", "mixture_of_experts", **known | settings)


CHOICES = {
    "linear": named("linear"),
    "parallel": named("parallel"),
    "skip": named("skip"),
    "fixed_skip": shipped("depth", "fixed_skip", capacity=0.3),
    "mixture_of_experts": experts(top_k=2, shared=1, bias_rate=0.0),
    "integrated MoDE": experts(experts=3, noop_experts=1),
    "expert_choice": shipped("feed_forward", "expert_choice", experts=4, capacity=1.0),
    "sliding_window": shipped("attention", "sliding_window", window=5, sinks=2, full_every=2),
    "routed": shipped("depth", "routed", capacity=0.25, start_capacity=1.0, reached=0.5),
    "routed, frozen": shipped("depth", "routed", capacity=0.5, router="frozen", gate="one"),
    "moe in linear in skip": {**experts(top_k=2), **named("linear"), **named("skip")},
    "staged: routed moe": {**experts(), "depth": TopK(capacity=0.5)},
    "routed parallel": {**named("parallel"), "depth": TopK(capacity=0.5)},
}


def model_of(**choices: Any) -> ModelConfig:
    return small_model(width=12, heads=3, head_width=4, hidden=20, **choices)


def run_of(folder: Path, **choices: Any) -> RunConfig:
    """Return a run of twelve steps on a corpus that is written where it is missing."""
    corpus = folder / "corpus.txt"
    if not corpus.exists():
        draw = random.Random(0)
        corpus.write_text("\n\n".join("".join(draw.choices("abc ", k=400)) for _ in range(20)))
    return RunConfig(
        model=model_of(**choices),
        data=DataConfig(
            corpus=str(corpus), sequence_length=16, validation_fraction=0.2, test_fraction=0.2
        ),
        recipe=RECIPE,
        steps=12,
        sequences_per_step=4,
        evaluation_tokens=200,
    )
