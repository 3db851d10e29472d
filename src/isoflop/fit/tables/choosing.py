"""Which rows a user wants: those of a condition, the last of each run, the best of a setting."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.fit.tables.numbers import missing, number, numbers
from isoflop.fit.tables.wanted import column_named

_CONDITION = re.compile(r"(?P<column>.+?)\s*(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<value>.*)", re.DOTALL)
_OVERLAPPING = 0.8
"""Share of the parts into which a column cuts runs that must hold several rows for it to be a
setting of runs, and not something that changes along them."""


@dataclass(frozen=True)
class Best:
    """The rows of the best setting of each cell."""

    kept: pd.Series
    """A flag per row."""
    note: str
    at_edge: int
    """Cells whose best setting is the lowest or the highest tried."""


def fulfils(rows: pd.DataFrame, condition: str, source: str) -> pd.Series:
    """Return which rows fulfil a condition such as `dataset=web`, `seed!=3` or `step>=1000`.

    Equal are the same numbers, or the same texts in any case.

    Raises:
        ValueError: it is no condition, names no column, or no row fulfils it.
    """
    column, sign, value = _parts(rows, condition, source)
    if not column:
        raise ValueError(
            f"--where has {condition!r}; expected COLUMN=VALUE, or !=, <, >, <= or >= in place of ="
        )
    cells, wanted = rows[column], number(value)
    values = numbers(cells)
    if sign in ("=", "==", "!="):
        texts = cells.map(lambda cell: "" if missing(cell) else str(cell).strip().casefold())
        equal = (texts == value.strip().casefold()) | (values == wanted)
        held = ~equal if sign == "!=" else equal
    else:
        if np.isnan(wanted):
            raise ValueError(f"--where has {condition!r}; expected a number after {sign}")
        compare = {"<": values.lt, ">": values.gt, "<=": values.le, ">=": values.ge}[sign]
        held = compare(wanted)
    if not held.any():
        shown = ", ".join(map(str, cells.drop_duplicates()[:8]))
        raise ValueError(f"no row of {source} has {condition}; {column} holds {shown}")
    return held.astype(bool)


def column_of(rows: pd.DataFrame, condition: str) -> str:
    """Return the column of a condition that `fulfils` takes."""
    return _parts(rows, condition, "the table")[0]


def _parts(rows: pd.DataFrame, condition: str, source: str) -> tuple[str, str, str]:
    """Return the column, sign and value of a condition; three times '' where it is none."""
    for one in sorted(map(str, rows), key=len, reverse=True):
        if condition.startswith(one):
            rest = re.fullmatch(r"\s*(!=|<=|>=|==|=|<|>)\s*(.*)", condition[len(one) :], re.DOTALL)
            return (one, rest[1], rest[2]) if rest else ("", "", "")
    found = _CONDITION.fullmatch(condition.strip())
    if not found:
        return "", "", ""
    return column_named(rows, found["column"], "--where", source), found["sign"], found["value"]


def last_rows(
    rows: pd.DataFrame, steps: pd.Series, runs: pd.DataFrame, others: Collection[str]
) -> tuple[pd.Series, tuple[str, ...]]:
    """Return which rows are the last of their run, and the columns that told runs apart.

    A run is what has the same values of `runs`, and of each other column that stays as it is along
    runs: one that parts these into several rows each, whose steps overlap. What grows with the
    step, such as tokens or the learning rate of a schedule, parts them one after another.

    Args:
        rows: of the table.
        steps: how far each row is.
        runs: a row each; what is known to tell runs apart.
        others: columns of `rows` that may do so as well.
    """
    key = _codes(runs)
    used = []
    for column in others:
        levels = pd.factorize(rows[column].map(str))[0]
        if _stays(key, levels, steps):
            # Where runs have one value each of it anyhow, nothing changes.
            key = _codes(pd.DataFrame({"key": key, "level": levels}))
            used.append(column)
    last = steps.groupby(key).transform("max")
    return steps == last, tuple(used)


def best_rows(
    rows: pd.DataFrame, columns: Sequence[str], cells: pd.Series, losses: pd.Series
) -> Best:
    """Return the rows of the setting with the lowest mean loss of each cell.

    Args:
        rows: of the table.
        columns: that make up a setting.
        cells: which cell each row is of.
        losses: of each row.
    """
    settings = _codes(pd.DataFrame({name: rows[name].map(str) for name in columns}))
    means = losses.groupby([cells.to_numpy(), settings]).transform("mean")
    kept = means == means.groupby(cells.to_numpy()).transform("min")
    tried = pd.Series(settings, index=rows.index).groupby(cells.to_numpy()).nunique()
    at_edge = np.zeros(len(tried), dtype=bool)
    searched = tried.to_numpy() > 1
    for name in columns:
        values = numbers(rows[name])
        if values.isna().any():
            continue
        grouped = values.groupby(cells.to_numpy())
        best = values[kept].groupby(cells.to_numpy()[kept.to_numpy()]).first()
        several = grouped.nunique() > 1
        ends = (best == grouped.min()) | (best == grouped.max())
        at_edge |= (ends & several).to_numpy()
    names = " and ".join(columns)
    alone = int((~searched).sum())
    note = (
        f"The best {names} of {int(tried.max())} tried is kept for each of {len(tried)} pairs of "
        f"size and tokens; it is the lowest or the highest tried in {int(at_edge.sum())} of them"
        + (f", and the only one tried in {alone}." if alone else ".")
    )
    return Best(kept, note, int(at_edge.sum()))


def _stays(key: np.ndarray, levels: np.ndarray, steps: pd.Series) -> bool:
    """Return whether a column stays as it is along runs, and tells some of them apart."""
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
    if frame.shape[1] == 0:
        return np.zeros(len(frame), dtype=np.int64)
    return frame.groupby(list(frame), dropna=False, sort=False).ngroup().to_numpy()
