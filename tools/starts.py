#!/usr/bin/env python3
"""When runs start to learn, and how much of a variant's lead that explains.

    tools/starts.py mod-seeds mod-variants mod-variants-muon > results/starts.csv

A run starts where its training loss falls below 2 nats per byte. The size of each variant is the
one with the lowest mean loss over `LEAST` seeds or more. `slope` is what a start later by 1% costs
in nats, over seeds of one size (a common slope, sizes of their own level, with its standard error);
`explained` is the part of the lead that it makes of the difference of starts, in tokens read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from isoflop.config import RunRecord
from isoflop.config.load import load_study
from isoflop.fit import frame
from isoflop.planning.assignment import assign
from isoflop.runs.store import read_records

RESULTS = Path(__file__).parents[1] / "results"
BELOW = 2.0
LEAST = 5


def start(record: RunRecord) -> float:
    """Return the tokens after which the training loss is below `BELOW`, NaN for never."""
    steps = np.array([0, *(point.step for point in record.curve)])
    losses = np.array([point.loss for point in record.curve])
    middles, at = (steps[1:] + steps[:-1]) / 2, int(np.argmax(losses < BELOW))
    if at == 0:
        return float("nan")
    share = (losses[at - 1] - BELOW) / (losses[at - 1] - losses[at])
    step = middles[at - 1] + share * (middles[at] - middles[at - 1])
    return float(step * record.config.tokens_per_step)


def slope(runs: pd.DataFrame) -> tuple[float, float]:
    """Return what a start later by 1% costs within sizes, and the standard error."""
    sizes = runs.groupby(["variant", "parameters"])
    x, y = (runs[name] - sizes[name].transform("mean") for name in ("log_start", "loss"))
    found = float((x * y).sum() / (x**2).sum())
    free = len(runs) - sizes.ngroups - 1
    error = float(np.sqrt(((y - found * x) ** 2).sum() / free / (x**2).sum()))
    return found / 100, error / 100


def row(folder: Path) -> dict[str, object]:
    """Return a study's row: its baseline and the variant after it, at their best sizes."""
    study, records = load_study(folder / "study.json"), read_records(folder / "records.jsonl.gz")
    known = assign(study, records)
    own = [one for one in records if one.run_id in known.variant_of and one.state == "finished"]
    runs = frame(own, known.variant_of, off_ladder=known.off_ladder)
    runs["log_start"] = np.log(runs["run_id"].map({one.run_id: start(one) for one in own}))
    sizes = runs.groupby(["variant", "parameters"])["loss"].agg(["mean", "size"])
    best = sizes[sizes["size"] >= LEAST].reset_index().sort_values("mean")
    here = [best[best["variant"] == one.name].iloc[0] for one in study.variants[:2]]
    several = runs[runs.groupby(["variant", "parameters"])["seed"].transform("size") > 1]
    cost, error = slope(several)
    keyed = runs.set_index(["variant", "parameters"])["log_start"]
    base, other = (keyed[(one["variant"], one["parameters"])].mean() for one in here)
    later = 100 * (other - base)
    return {
        "study": folder.name,
        "variant": here[1]["variant"],
        "baseline_start_mtokens": np.exp(base) / 1e6,
        "start_mtokens": np.exp(other) / 1e6,
        "slope": cost,
        "slope_error": error,
        "lead": here[1]["mean"] - here[0]["mean"],
        "explained": cost * later,
        "explained_error": error * abs(later),
    }


if __name__ == "__main__":
    rows = pd.DataFrame([row(RESULTS / one) for one in sys.argv[1:]])
    rows.to_csv(sys.stdout, index=False, float_format="%.5g")
