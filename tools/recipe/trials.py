#!/usr/bin/env python3
"""Train the two contenders under one change of the recipe after another; see docs/recipe.md.

    tools/recipe/trials.py FOLDER [--only NAME ...] [--seeds N] [--noise N] [--budget FLOPS]

Each trial is a run in FOLDER, taken by whoever comes first, so that this may be started several
times, and again after it was stopped. `tools/recipe/table.py` tells what came of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from isoflop.config import DataConfig, EveryToken, ModelConfig, Recipe, RunConfig, TopK
from isoflop.costs import train_flops_per_token
from isoflop.planning import tokens_per_step
from isoflop.runs import RunClaimed, RunFolder
from isoflop.training import train

ROOT = Path(__file__).resolve().parents[2]

MODELS = {
    2e12: {"Baseline": (3, 40), "MoD 12.5%": (8, 32)},
    5e12: {"Baseline": (4, 48), "MoD 12.5%": (8, 40)},
}
"""Blocks and width near the best size of a budget, by mod-variants."""

NOISE_OF = "muon 0.02, averaged"
"""Whose noise is taken apart."""
MUON = {"kind": "muon"}
TRIALS: dict[str, dict[str, Any]] = {
    "adamw 8e-3": {},
    "muon 0.02": {"optimiser": MUON, "learning_rate": 0.02},
    "muon 0.04": {"optimiser": MUON | {"adamw_rate": 0.2}, "learning_rate": 0.04},
    "muon 0.01": {"optimiser": MUON | {"adamw_rate": 0.8}, "learning_rate": 0.01},
    "muon 0.005": {"optimiser": MUON | {"adamw_rate": 1.6}, "learning_rate": 0.005},
    "adamw 1.28e-2": {"learning_rate": 1.28e-2},
    "muon 0.02, rest 0.8": {"optimiser": MUON | {"adamw_rate": 0.8}, "learning_rate": 0.02},
    "muon 0.02, beta2 0.99": {
        "optimiser": MUON | {"adamw": {"beta2": 0.99}},
        "learning_rate": 0.02,
    },
    "muon 0.02, linear": {"optimiser": MUON, "learning_rate": 0.02, "schedule": {"kind": "linear"}},
    "muon 0.02, wsd": {"optimiser": MUON, "learning_rate": 0.02, "schedule": {"kind": "wsd"}},
    "muon 0.02, decay 0.3": {"optimiser": MUON | {"weight_decay": 0.3}, "learning_rate": 0.02},
    "muon 0.02, decay 0": {"optimiser": MUON | {"weight_decay": 0.0}, "learning_rate": 0.02},
    "adamw, beta2 0.99": {"optimiser": {"kind": "adamw", "beta2": 0.99}},
    "muon 0.02, warm-up 15%": {"optimiser": MUON, "learning_rate": 0.02, "warmup_fraction": 0.15},
    "muon 0.02, averaged": {"optimiser": MUON, "learning_rate": 0.02, "average_half_life": 0.02},
    "muon 0.02, steps of 1,024": {
        "optimiser": MUON,
        "learning_rate": 0.02,
        "tokens_per_step": 1024,
    },
    "muon 0.02, steps of 4,096": {
        "optimiser": MUON,
        "learning_rate": 0.02,
        "tokens_per_step": 4096,
    },
    "muon 0.02, momentum 0.9": {"optimiser": MUON | {"momentum": 0.9}, "learning_rate": 0.02},
}


def run_of(
    budget: float, variant: str, change: dict[str, Any], seed: int, order: int | None = None
) -> RunConfig:
    """Return the run of a trial; its data comes in the order of `seed` unless another is given."""
    blocks, width = MODELS[budget][variant]
    model = ModelConfig(
        vocabulary=256,
        width=width,
        blocks=blocks,
        heads=2,
        head_width=width // 2 // 2 * 2,
        hidden=round(width * 8 / 3 / 16) * 16,
        query_key_norm=True,
        depth=TopK(capacity=0.125) if variant != "Baseline" else EveryToken(),
    )
    data = DataConfig(corpus="sotu", sequence_length=256)
    change = dict(change)
    held = change.pop("tokens_per_step", None) or tokens_per_step(budget, data.sequence_length)
    per_token = train_flops_per_token(model, data.sequence_length, "causal")
    recipe = Recipe.model_validate({"embedding_scale": 0.25, "precision": "fp32"} | change)
    return RunConfig(
        model=model,
        data=data,
        recipe=recipe,
        steps=round(budget / per_token / held),
        sequences_per_step=held // data.sequence_length,
        budget_flops=budget,
        seed=seed,
        data_seed=order,
    )


def crossed(count: int) -> list[tuple[int, int]]:
    """Return seeds with data orders, each of both `count` times, for an analysis of variance."""
    return [(seed, order) for seed in range(count) for order in range(100, 100 + count)]


def trials(
    budget: float, names: list[str], seeds: int, noise: int
) -> Iterator[tuple[str, str, RunConfig]]:
    """Yield the name, the variant and the run of each trial, in the order they are worth it."""
    for name in names:
        for seed in range(seeds):
            for variant in MODELS[budget]:
                yield name, variant, run_of(budget, variant, TRIALS[name], seed)
    for seed, order in crossed(noise):
        for variant in MODELS[budget]:
            yield "noise", variant, run_of(budget, variant, TRIALS[NOISE_OF], seed, order)


def main() -> None:
    """Train what is not trained yet."""
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--only", nargs="*")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--budget", type=float, default=2e12)
    options.add_argument("--noise", type=int, default=0, help="seeds crossed with data orders")
    options.add_argument("--cache", type=Path, default=ROOT / "cache")
    options.add_argument("--compiled", action="store_true", default=None)
    asked = options.parse_args()
    torch.set_num_threads(1)
    wanted = trials(asked.budget, asked.only or list(TRIALS), asked.seeds, asked.noise)
    for name, variant, config in wanted:
        folder = RunFolder(asked.folder / config.run_id)
        if folder.record() is not None:
            continue
        # Versions of a block compiled for earlier trials count towards a limit of torch's.
        torch.compiler.reset()
        try:
            record = train(config, folder, cache=asked.cache, threads=1, compiled=asked.compiled)
        except RunClaimed:
            continue
        found = record.evaluation("test")
        told = record.state if found is None else f"{found.loss:.4f}"
        print(f"{name}, {variant}, seed {config.seed}: {told}, {record.seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
