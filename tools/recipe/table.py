#!/usr/bin/env python3
"""Tell what each change of the recipe gained, and where the noise of a loss comes from.

    tools/recipe/table.py RECORDS [--from FOLDER] [--budget FLOPS] [--base NAME]

RECORDS is a file such as results/recipe/trials.jsonl.gz; `--from` adds the finished trials of a
folder of `tools/recipe/trials.py` to it first. Gains are over `--base`, on the seeds of both.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
from pathlib import Path

import numpy as np
from trials import MODELS, NOISE_OF, TRIALS, crossed, run_of

from isoflop.config import RunRecord
from isoflop.runs import RunFolder

SEEDS = 16
"""More than any trial has."""


def read(path: Path) -> dict[str, RunRecord]:
    """Return the records of a file by run id."""
    if not path.exists():
        return {}
    with gzip.open(path, "rt") as lines:
        found = [RunRecord.model_validate_json(line) for line in lines]
    return {record.run_id: record for record in found}


def write(path: Path, records: dict[str, RunRecord]) -> None:
    """Write records in the order of their run ids, the same bytes for the same records."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = (json.dumps(records[name].model_dump(mode="json")) for name in sorted(records))
    text = "".join(f"{row}\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def loss(records: dict[str, RunRecord], budget: float, variant: str, name: str, seed: int) -> float:
    """Return the test loss of a trial; NaN where it is not there."""
    record = records.get(run_of(budget, variant, TRIALS[name], seed).run_id)
    found = record.evaluation("test") if record else None
    return float("nan") if found is None else found.loss


def table(records: dict[str, RunRecord], budget: float, base: str) -> list[str]:
    """Return a line per change: mean losses, and what it gains over another on the same seeds."""
    lines = ["| change | " + " | ".join(f"{v}: loss | gain" for v in MODELS[budget]) + " | seeds |"]
    lines.append("| --- |" + " --- |" * (2 * len(MODELS[budget]) + 1))
    for name in TRIALS:
        cells, counts = [], []
        for variant in MODELS[budget]:
            pairs = [
                tuple(loss(records, budget, variant, one, seed) for one in (base, name))
                for seed in range(SEEDS)
            ]
            values = [after for _, after in pairs if after == after]
            gains = [
                before - after for before, after in pairs if before == before and after == after
            ]
            counts.append(len(values))
            cells.append(f"{statistics.mean(values):.4f}" if values else "")
            spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
            sure = "" if spread is None else f" +- {spread:.4f}"
            cells.append(f"{statistics.mean(gains):+.4f}{sure}" if gains and name != base else "")
        if any(counts):
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {min(counts)} |")
    return lines


def variance(records: dict[str, RunRecord], budget: float, count: int) -> list[str]:
    """Return the standard deviations by seed, by data order, and by what remains of the two."""
    lines = []
    for variant in MODELS[budget]:
        cells: dict[tuple[int, int], float] = {}
        for seed, order in crossed(count):
            record = records.get(run_of(budget, variant, TRIALS[NOISE_OF], seed, order).run_id)
            found = record.evaluation("test") if record else None
            if found is not None:
                cells[seed, order] = found.loss
        if len(cells) < count * count:
            continue
        grid = np.array(list(cells.values())).reshape(count, count)
        rows, columns = grid.mean(1, keepdims=True), grid.mean(0, keepdims=True)
        rest = ((grid - rows - columns + grid.mean()) ** 2).sum() / (count - 1) ** 2
        by_seed, by_order = (
            max(0.0, float(of.var(ddof=1)) - rest / count) for of in (rows, columns)
        )
        total = by_seed + by_order + rest
        parts = {"initialisation": by_seed, "data order": by_order, "both together": rest}
        shares = ", ".join(f"{k} {v**0.5:.4f} ({v / total:.0%})" for k, v in parts.items())
        lines.append(f"{variant}: {total**0.5:.4f} nats a run: {shares}")
    return lines


def main() -> None:
    """Collect, and print both tables."""
    options = argparse.ArgumentParser()
    options.add_argument("records", type=Path)
    options.add_argument("--from", dest="folder", type=Path)
    options.add_argument("--budget", type=float, default=2e12)
    options.add_argument("--noise", type=int, default=4)
    options.add_argument("--base", choices=TRIALS, default="adamw 8e-3")
    asked = options.parse_args()
    records = read(asked.records)
    if asked.folder:
        found = (RunFolder(path).record() for path in sorted(asked.folder.iterdir()))
        records |= {one.run_id: one for one in found if one is not None}
        write(asked.records, records)
    gained = table(records, asked.budget, asked.base)
    print("\n".join([*gained, "", *variance(records, asked.budget, asked.noise)]))


if __name__ == "__main__":
    main()
