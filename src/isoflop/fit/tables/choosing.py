"""Which rows a user wants: the last of each run, or the best of a setting that was searched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from isoflop.fit.tables.frame import group_budgets
from isoflop.fit.tables.numbers import numbers
from isoflop.fit.tables.sieve import Sieve
from isoflop.fit.tables.wanted import column_named

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
    rows, values, wanted = sieve.rows, sieve.values, sieve.wanted
    column = column_named(rows, last_of, "--last-of", sieve.source)
    steps = numbers(rows[column])
    sieve.leave(steps.isna(), f"{column} is missing or no number", rows[column])
    kept = sieve.kept
    if not kept.any():
        raise ValueError(f"{sieve.source} has no row with a number in {column}")
    # To four digits: where parameters follow from others they wobble.
    sizes = values["parameters"].map(lambda one: f"{one:.4g}")
    runs = pd.DataFrame({"variant": values["variant"], "parameters": sizes})
    told = ["variant", "parameters"] if "variant" in wanted else ["parameters"]
    for name in ("seed", "run"):
        if name in wanted and wanted[name].values[kept].nunique() < int(kept.sum()):
            runs[name] = wanted[name].values.map(str)
            told.append(name)
    names = ("variant", "parameters", "seed", "run", "loss")
    apart = {column, *(used for name in names if name in wanted for used in wanted[name].used)}
    key, steps = _codes(runs[kept]), steps[kept]
    for other in (str(one) for one in rows if one not in apart):
        levels = pd.factorize(rows.loc[kept, other].map(str))[0]
        if _stays(key, levels, steps):
            # Where runs have one value each of it anyhow, nothing changes.
            key = _codes(pd.DataFrame({"key": key, "level": levels}))
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
    cells = _codes(runs[["variant", "parameters"]].assign(budget=groups))
    codes = _codes(pd.DataFrame({name: rows[name].map(str) for name in columns}))
    means = runs["loss"].groupby([cells, codes]).transform("mean")
    kept = means == means.groupby(cells).transform("min")
    tried = pd.Series(codes).groupby(cells).nunique()
    at_edge = np.zeros(len(tried), dtype=bool)
    for name in columns:
        values = numbers(rows[name])
        if values.isna().any():
            continue
        grouped = values.groupby(cells)
        best = values[kept].groupby(cells[kept.to_numpy()]).first()
        several = grouped.nunique() > 1
        ends = (best == grouped.min()) | (best == grouped.max())
        at_edge |= (ends & several).to_numpy()
    names = " and ".join(columns)
    sieve.leave(~kept, f"its {names} is not the best of its size and tokens")
    alone = int((tried <= 1).sum())
    note = (
        f"The best {names} of {int(tried.max())} tried is kept for each of {len(tried)} pairs of "
        f"size and tokens; it is the lowest or the highest tried in {int(at_edge.sum())} of them"
        + (f", and the only one tried in {alone}." if alone else ".")
    )
    return note, bool(at_edge.any())


def _stays(key: np.ndarray, levels: np.ndarray, steps: pd.Series) -> bool:
    """Return whether a column stays as it is along runs, and tells some of them apart.

    It parts them into several rows each, whose steps overlap. What grows with the step, such as
    tokens or the learning rate of a schedule, parts them one after another.
    """
    parts = (
        pd.DataFrame({"key": key, "level": levels, "step": steps.to_numpy()})
        .groupby(["key", "level"])["step"]
        .agg(["size", "min", "max"])
        .reset_index()
        .sort_values(["key", "min"])
    )
    cut = parts[parts.groupby("key")["level"].transform("size") > 1]
    if cut.empty or (cut["size"] > 1).mean() < _OVERLAPPING:
        return False
    before = cut.groupby("key")["max"].shift()
    following = before.notna()
    return bool((cut["min"] <= before)[following].mean() >= _OVERLAPPING)


def _codes(frame: pd.DataFrame) -> np.ndarray:
    """Return a number for each distinct row."""
    return frame.groupby(list(frame), dropna=False, sort=False).ngroup().to_numpy()
