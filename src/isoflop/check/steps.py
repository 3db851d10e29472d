"""A training step of each variant, in every way that it is made, against the plain step."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from isoflop.check.comparing import TOLERANCE, Check, Found, Place, apart, by_size
from isoflop.check.operators import HINT
from isoflop.config import (
    Attention,
    BlockAttention,
    DataConfig,
    Depth,
    EveryToken,
    FullAttention,
    ModelConfig,
    RandomK,
    Recipe,
    RunConfig,
    TopK,
)
from isoflop.model import build
from isoflop.training import Trainer, compiling_fault, initialise

DEPTHS: tuple[Depth, ...] = (EveryToken(), TopK(capacity=0.25), RandomK(capacity=0.25))
ATTENTIONS: tuple[Attention, ...] = (FullAttention(), BlockAttention(block_size=16, top_k=2))
VOCABULARY, LENGTH, SEQUENCES = 256, 64, 4
WAYS: dict[str, dict[str, Any]] = {
    "a sequence at a time": {"micro_batch": 1},
    "three sequences at a time": {"micro_batch": 3},
    "blocks recomputed": {"recompute": "full"},
    "all but products recomputed": {"recompute": "selective"},
    "logits in chunks": {"logits": VOCABULARY * 50},
}


def small_run(place: Place, steps: int = 1, **changes: Any) -> RunConfig:
    """Return a run of a small model, of the choices and sizes of `ModelConfig` that are given."""
    small = {"width": 64, "blocks": 4, "heads": 4, "kv_heads": 2, "head_width": 16, "hidden": 160}
    return RunConfig(
        model=ModelConfig.model_validate({"vocabulary": VOCABULARY, **small, **changes}),
        data=DataConfig(sequence_length=LENGTH),
        recipe=Recipe(precision=place.precision),
        steps=steps,
        sequences_per_step=SEQUENCES,
        evaluation_tokens=1000,
    )


def checks(device: str) -> tuple[Check, ...]:
    """Return the checks of steps; of compiled ones where a compiler is there."""
    variants = [{"depth": depth, "attention": one} for one in ATTENTIONS for depth in DEPTHS]
    cuda, alike = device == "cuda", "loss and gradients with"
    parts = "micro-batches, recomputed blocks and chunked logits with the plain step"
    there, few = (variants, variants) if cuda else ([], variants[:2])
    eagerly = "set TORCHDYNAMO_DISABLE=1 to train eagerly, and report it as `isoflop check --json`"
    kinds: list[tuple[str, str, str, Callable[..., Found], list[dict[str, Any]]]] = [
        ("step of {}", parts, HINT, ways, variants),
        ("step of {} on the GPU", f"{alike} those on the CPU in fp32", HINT, _on_device, there),
        ("compiled step of {}", f"{alike} the eager step", eagerly, compiled, few),
    ]
    return tuple(
        Check(
            name=name.format(_name(**choices)),
            compared=compared,
            hint=hint,
            find=partial(find, **choices),
            in_every_precision=cuda or find is not compiled,
        )
        for name, compared, hint, find, those in kinds
        for choices in those
    )


def _name(depth: Depth, attention: Attention) -> str:
    kinds = {"every_token": "dense", "top_k": "MoD", "random_k": "random routing"}
    kind = kinds.get(depth.kind, depth.kind)
    return kind if isinstance(attention, FullAttention) else f"{kind}, block attention"


def learned(config: RunConfig, device: str, **how: Any) -> list[Tensor]:
    """Return what a batch measures and the gradient of each parameter."""
    model = build(config.model)
    initialise(model, config.recipe, seed=0)
    trainer = Trainer(model.to(device), config, **{"compiled": False, **how})
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(VOCABULARY, (SEQUENCES, LENGTH + 1), generator=generator)
    found = trainer.gradients(tokens.to(device), 0)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [found.values[:1], torch.cat([gradient.flatten() for gradient in gradients])]


def ways(place: Place, **choices: Any) -> Found:
    """Compare a step in each way that it is made with the plain step."""
    config = small_run(place, **choices)
    plain = learned(config, place.device)
    differences = {
        name: apart(learned(config, place.device, **how), plain) for name, how in WAYS.items()
    }
    worst = max(differences, key=lambda name: by_size(differences[name]))
    return Found(differences[worst], TOLERANCE[place.precision], f"most apart: {worst}")


def _on_device(place: Place, **choices: Any) -> Found:
    config = small_run(place, **choices)
    plain = learned(small_run(Place("cpu", "fp32"), **choices), "cpu")
    # In bf16 a token near the border may be selected that is not in fp32.
    tolerance = {"fp32": 1e-4, "bf16": 0.1}[place.precision]
    return Found(apart(learned(config, place.device), plain), tolerance)


def compiled(place: Place, **choices: Any) -> Found:
    """Compare a compiled step with the eager one."""
    fault = compiling_fault(place.device)
    if fault is not None:
        return Found(None, None, f"not made: {fault}")
    config = small_run(place, **choices)
    plain = learned(config, place.device)
    counters.clear()
    with warnings.catch_warnings(action="ignore"):  # of torch's own insides
        found = learned(config, place.device, compiled=True)
    graphs, breaks = counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())
    note = f"{graphs} graphs, {breaks} breaks in them"
    return Found(apart(found, plain), 10 * TOLERANCE[place.precision], note)
