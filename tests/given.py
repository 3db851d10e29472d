"""What tests of several rooms take as given: an environment, a recipe, a flipped bit."""

from __future__ import annotations

from pathlib import Path

from isoflop.config import Environment, Recipe

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
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.95,
    epsilon=1e-8,
    gradient_clip=1.0,
    router_rate=1.0,
    embedding_scale=1.0,
    router_scale=0.02,
    precision="fp32",
)
"""Every field is named, so that a change of the defaults is no change of what is tested."""

FP32 = Recipe(precision="fp32")
"""The default recipe of a run, quick on every processor."""


def flip(path: Path, bit: int = 3) -> None:
    """Flip a bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit
    path.write_bytes(data)
