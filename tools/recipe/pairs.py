#!/usr/bin/env python3
"""Tell what another optimiser gained, over runs of two studies that are alike in all else.

    tools/recipe/pairs.py RECORDS OTHERS > results/recipe/own-each.csv

A row a pair: its parts, parameters, budget and seed, the test losses under the headline decision,
and what that of OTHERS is less the one of RECORDS.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from isoflop.config import RunRecord
from isoflop.runs import read_records


def alike(record: RunRecord) -> str:
    """Return what a run is but for its optimiser, as text."""
    recipe = record.config.recipe.model_copy(update={"optimiser": None})
    return record.config.model_copy(update={"recipe": recipe}).model_dump_json(warnings=False)


def main() -> None:
    """Print the table."""
    first, others = (
        {alike(one): one for one in read_records(Path(path)) if one.state == "finished"}
        for path in sys.argv[1:3]
    )
    table = csv.writer(sys.stdout, lineterminator="\n")
    parts = ("attention", "feed_forward", "depth")
    table.writerow((*parts, "parameters", "budget_flops", "seed", "loss", "other", "difference"))
    rows = []
    for key in first.keys() & others.keys():
        one, other = first[key], others[key]
        if one.config.recipe.optimiser != other.config.recipe.optimiser:
            model = one.config.model
            kinds = (getattr(model, part).kind for part in parts)
            losses = [record.evaluation("test").loss for record in (one, other)]
            about = (one.parameters.total, one.config.budget_flops, one.config.seed)
            rows.append((*kinds, *about, *losses, losses[1] - losses[0]))
    table.writerows(sorted(rows))


if __name__ == "__main__":
    main()
