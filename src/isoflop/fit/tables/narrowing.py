"""Leaving out all but the last row of each run, or the best setting of each size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from isoflop.fit.tables.choosing import Best, best_rows, last_rows
from isoflop.fit.tables.grouping import group_budgets
from isoflop.fit.tables.left_out import Sieve
from isoflop.fit.tables.numbers import numbers
from isoflop.fit.tables.wanted import Wanted, column_named


def keep_last(
    sieve: Sieve,
    rows: pd.DataFrame,
    values: pd.DataFrame,
    wanted: Mapping[str, Wanted],
    last_of: str,
    source: str,
) -> str:
    """Leave out all rows of each run but its last, and return what was done.

    Args:
        sieve: leaves them out.
        rows: of the table.
        values: their wanted columns, all three axes among them.
        wanted: where these come from.
        last_of: column that grows along a run.
        source: what to call the table in messages.

    Raises:
        ValueError: there is no such column, or no number in it.
    """
    column = column_named(rows, last_of, "--last-of", source)
    steps = numbers(rows[column])
    sieve.leave(steps.isna(), f"{column} is missing or no number", rows[column])
    kept = sieve.kept
    if not kept.any():
        raise ValueError(f"{source} has no row with a number in {column}")
    runs = pd.DataFrame({"variant": values["variant"], "parameters": _rounded(values)})
    told = ["variant"] if "variant" in wanted else []
    told.append("parameters")
    for name in ("seed", "run"):
        if name in wanted and wanted[name].values[kept].nunique() < int(kept.sum()):
            runs[name] = wanted[name].values.map(str)
            told.append(name)
    apart = {
        one
        for name in ("variant", "parameters", "seed", "run", "loss")
        if name in wanted
        for one in wanted[name].used
    }
    others = [str(one) for one in rows if one != column and one not in apart]
    last, more = last_rows(rows[kept], steps[kept], runs[kept], others)
    before = np.zeros(len(rows), dtype=bool)
    before[kept] = ~last.to_numpy()
    sieve.leave(before, f"it is not the last of its run by {column}")
    return (
        f"The last row by {column} is kept of each of {int(last.sum())} runs, told apart by "
        f"{', '.join([*told, *more])}."
    )


def _rounded(values: pd.DataFrame) -> pd.Series:
    """Return parameters to four digits: where they follow from others they wobble."""
    return values["parameters"].map(lambda one: f"{one:.4g}")


def keep_best(
    sieve: Sieve,
    rows: pd.DataFrame,
    values: pd.DataFrame,
    settings: Sequence[str],
    tolerance: float,
    source: str,
) -> Best:
    """Leave out runs of a searched setting that is not the best of its variant, size and budget.

    Args:
        sieve: leaves them out.
        rows: of the table.
        values: their wanted columns, all three axes among them.
        settings: columns that make up the setting.
        tolerance: as for `group_budgets`.
        source: what to call the table in messages.

    Raises:
        ValueError: there is no such column.
    """
    columns = [column_named(rows, one, "--best-of", source) for one in settings]
    kept = sieve.kept
    runs = values[kept]
    groups, _ = group_budgets(runs["budget_flops"].to_numpy(), tolerance)
    key = runs[["variant", "parameters"]].assign(budget=groups)
    cells = key.groupby(list(key), sort=False).ngroup()
    best = best_rows(rows[kept], columns, cells, runs["loss"])
    worse = np.zeros(len(rows), dtype=bool)
    worse[kept] = ~best.kept.to_numpy()
    sieve.leave(worse, f"its {' and '.join(columns)} is not the best of its size and tokens")
    return best
