"""Losses of twenty steps per variant stay where they are through a refactor.

Where a change of numerics is meant, write them anew and say so in the commit:

    PYTHONPATH=tests python tests/contracts/test_golden_runs.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from given import RECIPE
from isoflop.config import (
    BlockAttention,
    Depth,
    EveryToken,
    FeedForward,
    FullAttention,
    Gelu,
    ModelConfig,
    RandomK,
    RunConfig,
    SwiGlu,
    TopK,
)
from isoflop.model import build
from isoflop.training import Trainer, initialise, rate_factor

GOLDEN = Path(__file__).parent.parent / "golden" / "losses.json"
STEPS, TOLERANCE = 20, 1e-4

PINNED = RECIPE.model_copy(update={"learning_rate": 6e-3, "final_fraction": 0.1})

BLOCKS = BlockAttention(block_size=4, top_k=2, full_last=1, key_convolution=3)

CHOICES: dict[str, tuple[Depth, FeedForward, bool]] = {
    "block attention": (EveryToken(), SwiGlu(), False),
    "dense": (EveryToken(), SwiGlu(), False),
    "dense, GELU, query-key norm": (EveryToken(), Gelu(), True),
    "top-k, linear": (TopK(capacity=0.25, every=2, gate="linear"), SwiGlu(), False),
    "top-k, sigmoid": (TopK(capacity=0.25, every=2, gate="sigmoid"), SwiGlu(), False),
    "top-k, tanh, router BCE": (
        TopK(capacity=0.5, blocks=(1, 2), gate="tanh", router_bce=0.01),
        SwiGlu(),
        True,
    ),
    "random control": (RandomK(capacity=0.25, every=2, gate="linear"), SwiGlu(), False),
}


def config_of(name: str) -> RunConfig:
    depth, feed_forward, variation = CHOICES[name]
    return RunConfig(
        model=ModelConfig(
            vocabulary=37,
            width=32,
            blocks=4,
            heads=4,
            kv_heads=2,
            head_width=8,
            hidden=48,
            attention=BLOCKS if name == "block attention" else FullAttention(),
            depth=depth,
            feed_forward=feed_forward,
            query_key_norm=variation,
            tied_embeddings=False,
            rope_base=10_000.0,
            norm_epsilon=1e-5,
        ),
        recipe=PINNED,
        steps=STEPS,
        sequences_per_step=4,
        seed=1,
    )


def losses(name: str) -> list[float]:
    """Train on counting sequences of several strides, which a few steps begin to learn."""
    config = config_of(name)
    model = build(config.model)
    initialise(model, config.recipe, config.seed)
    trainer = Trainer(model, config, compiled=False)
    found = []
    for step in range(STEPS):
        rows = torch.arange(4)[:, None] + 4 * step
        tokens = (7 * rows + (1 + rows % 3) * torch.arange(33)) % 37
        found.append(trainer.step(tokens, step, rate_factor(config, step)).loss)
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", CHOICES)
def test_losses_stay_put(name: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    found = losses(name)
    assert found == pytest.approx(golden[name], abs=TOLERANCE)
    # It learns, so that the figures say something about updates too.
    assert found[-1] < found[0] - 0.1


def test_variants_are_told_apart() -> None:
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(CHOICES)
    finals = sorted(values[-1] for values in golden.values())
    assert all(b - a > 10 * TOLERANCE for a, b in pairwise(finals))


if __name__ == "__main__":
    torch.set_num_threads(1)
    rounded = {name: [round(loss, 6) for loss in losses(name)] for name in CHOICES}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(json.dumps(rounded, indent=1) + "\n")
