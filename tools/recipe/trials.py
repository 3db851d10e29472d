#!/usr/bin/env python3
"""Train the two contenders under one change of the recipe after another; see docs/recipe.md.

    tools/recipe/trials.py FOLDER [--only NAME ...] [--seeds N] [--budget FLOPS]

Each trial is a run in FOLDER, taken by whoever comes first, so that this may be started several
times, and again after it was stopped. `tools/recipe/table.py` tells what came of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from isoflop.config import (
    DataConfig,
    EveryToken,
    ModelConfig,
    Recipe,
    RunConfig,
    TopK,
)
from isoflop.planning import tokens_per_step
from isoflop.costs import train_flops_per_token
from isoflop.runs import RunClaimed, RunFolder
from isoflop.training import train

ROOT = Path(__file__).resolve().parents[2]

MODELS = {
    2e12: {"Baseline": (3, 40), "MoD 12.5%": (8, 32)},
    5e12: {"Baseline": (4, 48), "MoD 12.5%": (8, 40)},
}
"""Blocks and width near the best size of a budget, by mod-variants."""

MUON = {"kind": "muon"}
TRIALS: dict[str, dict[str, Any]] = {
    "adamw 8e-3": {},
    "muon 0.02": {"optimiser": MUON, "learning_rate": 0.02},
    "muon 0.04": {"optimiser": MUON | {"adamw_rate": 0.2}, "learning_rate": 0.04},
    "muon 0.01": {"optimiser": MUON | {"adamw_rate": 0.8}, "learning_rate": 0.01},
    "adamw 1.28e-2": {"learning_rate": 1.28e-2},
    "muon 0.02, rest 0.8": {"optimiser": MUON | {"adamw_rate": 0.8}, "learning_rate": 0.02},
    "muon 0.02, beta2 0.99": {
        "optimiser": MUON | {"adamw": {"beta2": 0.99}},
        "learning_rate": 0.02,
    },
    "muon 0.02, linear": {
        "optimiser": MUON,
        "learning_rate": 0.02,
        "schedule": {"kind": "linear"},
    },
    "muon 0.02, wsd": {"optimiser": MUON, "learning_rate": 0.02, "schedule": {"kind": "wsd"}},
    "muon 0.02, decay 0.3": {"optimiser": MUON | {"weight_decay": 0.3}, "learning_rate": 0.02},
    "muon 0.02, decay 0": {"optimiser": MUON | {"weight_decay": 0.0}, "learning_rate": 0.02},
    "adamw, beta2 0.99": {"optimiser": {"kind": "adamw", "beta2": 0.99}},
    "muon 0.02, warm-up 15%": {
        "optimiser": MUON,
        "learning_rate": 0.02,
        "warmup_fraction": 0.15,
    },
    "muon 0.02, momentum 0.9": {"optimiser": MUON | {"momentum": 0.9}, "learning_rate": 0.02},
}


def run_of(budget: float, variant: str, change: dict[str, Any], seed: int) -> RunConfig:
    """Return the run of a trial."""
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
    held = tokens_per_step(budget, data.sequence_length)
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
    )


def main() -> None:
    """Train what is not trained yet."""
    options = argparse.ArgumentParser()
    options.add_argument("folder", type=Path)
    options.add_argument("--only", nargs="*")
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--budget", type=float, default=2e12)
    options.add_argument("--cache", type=Path, default=ROOT / "cache")
    asked = options.parse_args()
    torch.set_num_threads(1)
    for name in asked.only or TRIALS:
        for seed in range(asked.seeds):
            for variant in MODELS[asked.budget]:
                config = run_of(asked.budget, variant, TRIALS[name], seed)
                folder = RunFolder(asked.folder / config.run_id)
                if folder.record() is not None:
                    continue
                try:
                    record = train(config, folder, cache=asked.cache, threads=1, compiled=False)
                except RunClaimed:
                    continue
                tests = {e.decision: e.loss for e in record.evaluations if e.split == "test"}
                print(name, variant, seed, tests, record.seconds, flush=True)


if __name__ == "__main__":
    main()
