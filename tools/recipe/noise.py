#!/usr/bin/env python3
"""Measure, from recorded runs of several seeds, what would make a loss less noisy.

    tools/recipe/noise.py RECORDS ... > results/recipe/noise.csv

RECORDS are files such as results/mod-variants/records.jsonl.gz. Runs that differ in their seed
alone are a cell; cells of three seeds or more count. Each way to tell the loss of a run has a
standard deviation between seeds, pooled over the cells of one optimiser, budget and tokenizer, and
`relative` is that over the last test loss's. Its interval (95%) is by resampling models, since a
seed starts all cells of a model alike; fewer than five models have no row.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Callable, Iterable
from itertools import combinations
from typing import Any

import numpy as np

Record = dict[str, Any]
Cell = dict[int, Record]
Told = Callable[[Record], float]
Measured = tuple[float, float, float]
RESAMPLES, DRAWN, FEWEST_MODELS = 400, 1000, 5


def cells_of(records: Iterable[Record]) -> dict[tuple[str, float, str], list[Cell]]:
    """Return the cells of each optimiser, budget and tokenizer."""
    found: dict[str, Cell] = {}
    for record in records:
        one = record["config"]
        if record["state"] == "finished" and one.get("data_seed") is None:
            alike = json.dumps([one | {"seed": 0}, record["environment"]["compiled"]])
            found.setdefault(alike, {})[one["seed"]] = record
    groups: dict[tuple[str, float, str], list[Cell]] = {}
    for cell in (found[key] for key in sorted(found) if len(found[key]) > 2):
        one = cell[min(cell)]["config"]
        kind = one["recipe"].get("optimiser", {"kind": "adamw"})["kind"]
        name = kind, one["budget_flops"], one["data"]["tokenizer"]
        groups.setdefault(name, []).append(dict(sorted(cell.items())))
    return groups


def loss(record: Record, split: str = "test") -> float:
    """Return the held-out loss of the last weights; the causal decision's is written first."""
    return next(one["loss"] for one in record["evaluations"] if one["split"] == split)


def curve(record: Record, begin: float, end: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return places (shares of the run) and losses of a stretch of the training curve."""
    steps = record["config"]["steps"]
    points = np.array([(one["step"] / steps, one["loss"]) for one in record["curve"]])
    return tuple(points[(points[:, 0] > begin) & (points[:, 0] <= end)].T)


WAYS: dict[str, Told] = {
    "test and validation text": lambda one: (loss(one) + loss(one, "validation")) / 2,
    "training loss, last 10%": lambda one: curve(one, 0.9)[1].mean(),
    "training loss, line to its end": lambda one: np.polyval(np.polyfit(*curve(one, 0.8), 1), 1),
}
CONTROLS: dict[str, Told] = {
    "control: first training loss": lambda one: one["curve"][0]["loss"],
    "control: training loss at 20%": lambda one: curve(one, 0.18, 0.22)[1].mean(),
    "control: training loss at 50%": lambda one: curve(one, 0.48, 0.52)[1].mean(),
}


def residuals(cells: list[Cell], told: Told) -> list[np.ndarray]:
    """Return by cell how far each seed is from the mean of its cell."""
    values = [np.array([told(record) for record in cell.values()]) for cell in cells]
    return [each - each.mean() for each in values]


def pairs_of(cells: list[Cell]) -> np.ndarray:
    """Return (a, b, variance of differences, of unpaired ones) of cells that differ in depth."""
    rows = []
    for a, b in combinations(range(len(cells)), 2):
        one, other = (cells[c][min(cells[c])]["config"] for c in (a, b))
        common = sorted(cells[a].keys() & cells[b].keys())
        apart = one["data"] == other["data"] and one["model"]["depth"] != other["model"]["depth"]
        if apart and len(common) > 2:
            x, y = (np.array([loss(cells[c][seed]) for seed in common]) for c in (a, b))
            rows.append((a, b, (x - y).var(ddof=1), x.var(ddof=1) + y.var(ddof=1)))
    return np.array(rows).reshape(-1, 4)


def measured(cells: list[Cell]) -> dict[str, Measured]:
    """Return by name what was measured of a group; the first is in nats."""
    names = [json.dumps(cell[min(cell)]["config"]["model"]) for cell in cells]
    _, model = np.unique(names, return_inverse=True)
    models, random = int(model.max()) + 1, np.random.default_rng(0)
    draws = random.integers(models, size=(RESAMPLES, models))
    times = [np.bincount(one, minlength=models)[model] for one in draws]
    last = residuals(cells, loss)

    def over_models(of: Callable[[np.ndarray], float]) -> Measured:
        low, high = np.nanpercentile([of(one) for one in times], (2.5, 97.5))
        return of(np.ones(len(cells), int)), low, high

    def ratio(above: list[float], below: list[float]) -> Measured:
        return over_models(lambda n: max(n @ np.array(above) / (n @ np.array(below)), 0.0) ** 0.5)

    def squares(of: list[np.ndarray]) -> list[float]:
        return [each @ each for each in of]

    found = {"last test loss, nats": ratio(squares(last), [len(each) - 1 for each in last])}
    for name, told in WAYS.items():
        found[name] = ratio(squares(residuals(cells, told)), squares(last))
    held = residuals(cells, lambda record: loss(record, "validation"))
    found["test text without end"] = ratio(list(map(np.dot, last, held)), squares(last))
    for name, told in CONTROLS.items():
        control = residuals(cells, told)
        sums = np.array([(a @ b, b @ b) for a, b in zip(last, control, strict=True)])
        # By a slope that a cell's model has no part in.
        slopes = [np.divide(*sums[model != one].sum(0)) for one in model]
        rest = [a - slope * b for a, b, slope in zip(last, control, slopes, strict=True)]
        found[name] = ratio(squares(rest), squares(last))
    scaled = [each * (len(each) / (len(each) - 1)) ** 0.5 for each in last]

    def median(n: np.ndarray) -> float:
        pool = np.concatenate([np.tile(each, k) for each, k in zip(scaled, n, strict=True)])
        drawn = random.choice(pool, (DRAWN, 5))
        return float(np.median(drawn, 1).std() / drawn.mean(1).std())

    found["median of five seeds"] = over_models(median)
    a, b, difference, unpaired = pairs_of(cells).T

    def paired(n: np.ndarray) -> float:
        weight = n[a.astype(int)] * n[b.astype(int)]
        return ((weight @ difference) / (weight @ unpaired)) ** 0.5 if any(weight) else np.nan

    return found | ({"pairs of one seed": over_models(paired)} if len(a) else {})


def main(paths: list[str]) -> None:
    """Measure, and write a row per way and group."""
    records: dict[str, Record] = {}
    for path in paths:
        with gzip.open(path, "rt") as lines:
            records |= {one["run_id"]: one for one in map(json.loads, lines)}
    rows = csv.writer(sys.stdout, lineterminator="\n")
    print("optimiser,budget_flops,tokenizer,models,cells,runs,what,relative,low,high")
    for group, cells in sorted(cells_of(records.values()).items()):
        models = {json.dumps(cell[min(cell)]["config"]["model"]) for cell in cells}
        for what, numbers in measured(cells).items() if len(models) >= FEWEST_MODELS else ():
            counts = len(models), len(cells), sum(map(len, cells))
            rows.writerow([*group, *counts, what, *(f"{number:.3g}" for number in numbers)])


if __name__ == "__main__":
    main(sys.argv[1:])
