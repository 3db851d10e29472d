"""Which rows a user wants: the last of each run, or the best of a setting that was searched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isoflop.fit.tables.columns import column_named
from isoflop.fit.tables.frame import group_budgets
from isoflop.fit.tables.names import names_of
from isoflop.fit.tables.numbers import numbers
from isoflop.fit.tables.sieve import Sieve, codes

_OVERLAPPING = 0.8
"""Share of the parts into which a column cuts runs that must hold several rows for it to be a
setting of runs, and not something that changes along them."""


def keep_last(sieve: Sieve, last_of: str) -> str:
    """Leave out all rows of each run but its last by a column, and return what was done.

    A run is what has the same variant, size, seed and name, and the same of each other column that
    stays as it is along runs.

    Raises:
        ValueError: there is no such column, or no number in it.
    """
    rows, wanted = sieve.rows, sieve.wanted
    column = column_named(rows, last_of, "--last-of", sieve.source)
    steps = numbers(rows[column])
    sieve.leave(steps.isna(), f"{column} is no number", rows[column])
    if not sieve.kept.any():
        raise ValueError(f"{sieve.source} has no row with a number in {column}")
    steps, runs = steps[sieve.kept], sieve.values.loc[sieve.kept, ["variant", "parameters"]]
    # To four digits: where parameters follow from others they wobble.
    runs["parameters"] = runs["parameters"].map(lambda one: f"{one:.4g}")
    for name in ("seed", "run"):
        if name in wanted and (own := wanted[name].values[sieve.kept]).nunique() < len(runs):
            runs[name] = own.map(str)
    told = [name for name in names_of(runs) if name != "variant" or name in wanted]
    names = ("variant", "parameters", "seed", "run", "loss")
    apart = {column, *(used for name in names if name in wanted for used in wanted[name].used)}
    key = codes(runs)
    for other in (one for one in names_of(rows) if one not in apart):
        cells = rows.loc[sieve.kept, other].map(str)
        if _stays(key, cells, steps):
            key = codes(pd.DataFrame({"key": key, "cell": cells}))
            told.append(other)
    last = steps == steps.groupby(key).transform("max")
    sieve.leave(~last, f"it is not the last of its run by {column}")
    return (
        f"The last row by {column} is kept of each of {int(last.sum())} runs, told apart by "
        f"{', '.join(told)}."
    )


def keep_best(sieve: Sieve, settings: Sequence[str], tolerance: float) -> tuple[str, bool]:
    """Leave out runs of a searched setting that is not the best of its variant, size and budget.

    Args:
        sieve: leaves them out.
        settings: columns that make up the setting; the lowest mean loss is best.
        tolerance: as for `group_budgets`.

    Returns:
        What was done, and whether the best is the lowest or the highest tried anywhere.

    Raises:
        ValueError: there is no such column.
    """
    columns = [column_named(sieve.rows, one, "--best-of", sieve.source) for one in settings]
    rows, runs = sieve.rows[sieve.kept], sieve.values[sieve.kept]
    groups, _ = group_budgets(runs["budget_flops"].to_numpy(), tolerance)
    cells = codes(runs[["variant", "parameters"]].assign(budget=groups))
    setting = codes(rows[columns].map(str))
    means = runs["loss"].groupby([cells, setting]).transform("mean")
    best = (means == means.groupby(cells).transform("min")).to_numpy()
    tried = pd.Series(setting).groupby(cells).nunique()
    at_edge = np.zeros(len(tried), dtype=bool)
    for values in (numbers(rows[name]) for name in columns):
        if values.notna().all():
            grouped, chosen = values.groupby(cells), values[best].groupby(cells[best]).first()
            ends = (chosen == grouped.min()) | (chosen == grouped.max())
            at_edge |= (ends & (grouped.nunique() > 1)).to_numpy()
    names = " and ".join(columns)
    sieve.leave(~best, f"its {names} is not the best of its size and tokens")
    note = (
        f"The best {names} of {int(tried.max())} tried is kept for each of {len(tried)} pairs of "
        f"size and tokens; it is the lowest or the highest tried in {int(at_edge.sum())} of them."
    )
    return note, bool(at_edge.any())


def _stays(key: np.ndarray, cells: pd.Series, steps: pd.Series) -> bool:
    """Return whether a column stays as it is along runs, and tells some of them apart.

    It parts them into several rows each, whose steps overlap. What grows with the step, such as
    tokens or the learning rate of a schedule, parts them one after another.
    """
    spans = steps.groupby([key, cells.to_numpy()]).agg(["size", "min", "max"])
    spans = spans.rename_axis(["key", "cell"])
    cut = spans[spans.groupby("key")["size"].transform("size") > 1].sort_values(["key", "min"])
    if cut.empty or (cut["size"] > 1).mean() < _OVERLAPPING:
        return False
    before = cut.groupby("key")["max"].shift()
    return bool((cut["min"] <= before)[before.notna()].mean() >= _OVERLAPPING)
