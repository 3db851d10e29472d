#!/usr/bin/env python3
"""How long a step of Muon takes beside one of AdamW, at sizes of a study and at a larger width.

    tools/recipe/step_time.py results/mod-variants-muon/records.jsonl.gz > results/bench/muon.json

Compiled where training would, one thread, in turns, on an idle machine; the smallest, middle and
largest size of each variant. What Muon adds to a step is the same for any number of tokens, and per
block: two blocks of the larger width stand for eight, which would be 53M parameters.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

from isoflop.bench.cases import VOCABULARY, Case, plain_model
from isoflop.bench.train import bench_train
from isoflop.config import AdamW, DataConfig, Optimiser, RunConfig
from isoflop.costs import parameters
from isoflop.training import compiles_by_default

LARGE = (704, 2, 64)
"""Width, blocks and head width."""


def main(path: Path) -> None:
    """Measure, and print the rows."""
    with gzip.open(path, "rt") as lines:
        runs = [RunConfig.model_validate(json.loads(line)["config"]) for line in lines]
    muon = runs[0].recipe.optimiser
    if muon.kind != "muon":
        raise SystemExit(f"the runs of {path} were trained by {muon.kind}; expected Muon's")
    models: dict[str, dict[int, RunConfig]] = {}
    for run in runs:
        models.setdefault(repr(run.model.depth), {})[parameters(run.model).total] = run
    chosen = []
    for sizes in models.values():
        ordered = [sizes[size] for size in sorted(sizes)]
        chosen += [ordered[0], ordered[len(ordered) // 2], ordered[-1]]
    large = plain_model(*LARGE, VOCABULARY)
    data = DataConfig(tokenizer=f"bpe:{VOCABULARY}", sequence_length=256)
    chosen.append(runs[0].model_copy(update={"model": large, "data": data}))
    groups = [[case("AdamW", AdamW(), run), case("Muon", muon, run)] for run in chosen]
    print(bench_train(groups, threads=1, seconds=20.0, watch=tell).model_dump_json(indent=2))


def case(name: str, optimiser: Optimiser, run: RunConfig) -> Case:
    """Return a step with one optimiser."""
    recipe = run.recipe.model_copy(update={"optimiser": optimiser})
    config = run.model_copy(update={"recipe": recipe})
    return Case(variant=name, config=config, compiled=compiles_by_default(config))


def tell(line: str) -> None:
    """Say on the side what is measured now."""
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
