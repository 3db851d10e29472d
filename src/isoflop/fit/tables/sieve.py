"""Which rows of a table hold a run that fits can use and a user wants, and why others do not."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.columns import Column, column_named
from isoflop.fit.tables.frame import group_budgets
from isoflop.fit.tables.names import AXES, TEXTS, names_of, plain
from isoflop.fit.tables.numbers import missing, number, numbers

ALL = "all runs"
"""Name of the variant where a table has no such column."""
LARGEST_NUMBER = 1e50
"""Of a column, and its inverse the smallest; products of larger ones would overflow."""
_POSITIVE = ("loss", *AXES, "forward_flops")
_YES = ("true", "yes", "1", "1.0")
_NO = ("false", "no", "0", "0.0")
_FINISHED = re.compile(
    r"finish(?:ed)?|completed?|success(?:ful)?|succeeded|done|ok|ended|passed|true|yes",
    re.IGNORECASE,
)
_FLAG = re.compile(
    r"(success(?:ful)?|succeeded|(?:is_)?finished|completed|done)"
    r"|failed|failure|is_failed|crashed|(?:is_)?diverged|has_nan"
)
"""Columns of yes and no; in the group those that hold yes for a run that has finished."""
_COMPARISONS = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_OVERLAPPING = 0.8
"""Share of the parts into which a column cuts runs that must hold several rows for it to be a
setting of runs, and not something that changes along them."""


@dataclass(frozen=True)
class LeftOutRows:
    """Rows of a table that no fit uses."""

    reason: str
    rows: int
    first: int
    """Number of the first of them, counted from 1 without the header."""
    value: str | None = None
    """What stands there in the first of them, where one cell is the reason."""

    @property
    def words(self) -> str:
        """Return it as the end of a sentence: `7 rows: it has not ended (first: row 3, 'x')`."""
        value = "" if self.value is None else f", {self.value!r}"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{rows}: {self.reason} (first: row {self.first}{value})"


class Sieve:
    """The rows of a table with what fits want of them, of which some are left out.

    Of several reasons the first one stands. `source` is what to call the table in messages.
    """

    def __init__(self, rows: pd.DataFrame, wanted: Mapping[str, Column], source: str) -> None:
        self.rows, self.wanted, self.source = rows, wanted, source
        self.values = pd.DataFrame(
            {name: one.values for name, one in wanted.items() if name not in TEXTS},
            index=rows.index,
        )
        """The wanted columns of every row: floats, and the names of variants and clusters."""
        self.values["variant"] = ALL
        if "variant" in wanted:
            self.values["variant"] = wanted["variant"].values.map(_variant_name).astype(str)
        self.kept = np.ones(len(rows), dtype=bool)
        """A flag per row."""
        self._left: list[LeftOutRows] = []

    @property
    def left_out(self) -> tuple[LeftOutRows, ...]:
        """Return the reasons in the order of the rows that they concern first."""
        return tuple(sorted(self._left, key=lambda one: one.first))

    def leave(self, wrong: Any, reason: str, cells: Any = None) -> None:
        """Leave rows out for a reason that stands in one of their cells, or in none.

        Args:
            wrong: a flag per row, or per row that is kept.
            reason: the end of a sentence.
            cells: of every row.
        """
        wrong, left = np.asarray(wrong, dtype=bool), self.kept.copy()
        left[left] = wrong[left] if len(wrong) == len(left) else wrong
        if left.any():
            first = int(np.argmax(left))
            told = None if cells is None else " ".join(str(cells[first]).split())[:40]
            self._left.append(LeftOutRows(reason, int(left.sum()), first + 1, told))
            self.kept &= ~left

    def leave_unfinished(self, where: Sequence[str]) -> tuple[str, ...]:
        """Leave out rows that do not fulfil the conditions, and runs that have not finished.

        That is by their state, or by a flag such as `diverged`. A state that a condition asks for
        counts, whatever it is.

        Returns:
            The columns of flags.
        """
        asked = set()
        for condition in where:
            column, sign, held = _fulfils(self.rows, condition, self.source)
            self.leave(~held, f"not {condition}")
            asked |= {column} if sign in ("=", "==") else set()
        state = self.wanted.get("state")
        if state is not None and not asked & set(state.used):
            self.leave(~_have_finished(state.values), "the run has not finished", state.values)
        flags = _flags(self.rows)
        for column, finished in flags.items():
            self.leave(~finished, f"by {column} the run has not finished", self.rows[column])
        return tuple(flags)

    def leave_unusable(self) -> None:
        """Leave out rows without the positive numbers of a run.

        Raises:
            ValueError: none is left; it says what the table holds instead.
        """
        for name in (one for one in _POSITIVE if one in self.wanted):
            usual = self.values[name].between(1 / LARGEST_NUMBER, LARGEST_NUMBER)
            wanted = self.wanted[name]
            cells = wanted.values if wanted.computed else self.rows[wanted.used[0]]
            self.leave(~usual, f"{name} is no number that a run has", cells)
        if self.kept.any():
            return
        why = "; ".join(one.words for one in self.left_out[:6])
        state = self.wanted.get("state")
        if state is not None and not _have_finished(state.values).any():
            states = [str(one)[:40] for one in state.values.drop_duplicates()[:6]]
            why += (
                f'; "{state.used[0]}" holds {", ".join(map(repr, states))}: say which have '
                f'finished, such as --where "{state.used[0]}={states[0]}", or name another column '
                "with --columns state=COLUMN"
            )
        raise ValueError(f"{self.source} has no usable run ({why})")


def codes(frame: pd.DataFrame) -> np.ndarray:
    """Return a number for each distinct row."""
    return frame.groupby(list(frame), dropna=False, sort=False).ngroup().to_numpy()


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

    `settings` are the columns that make up the setting; the lowest mean loss is best.

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


def _fulfils(rows: pd.DataFrame, condition: str, source: str) -> tuple[str, str, pd.Series]:
    """Return the column and the sign of a condition such as `seed!=3`, and which rows fulfil it.

    Equal are the same numbers, or the same texts in any case.

    Raises:
        ValueError: it is no condition, names no column, or no row fulfils it.
    """
    names = "|".join(map(re.escape, sorted(names_of(rows), key=len, reverse=True)))
    found = re.fullmatch(rf"({names}|.+?)\s*([!<>=]=|[=<>])\s*(.*)", condition.strip(), re.DOTALL)
    if not found:
        raise ValueError(
            f"--where has {condition!r}; expected COLUMN=VALUE, or !=, <, >, <= or >= in place of ="
        )
    column = column_named(rows, found[1], "--where", source)
    sign, value = found[2], number(found[3])
    cells, compare = rows[column], _COMPARISONS[sign]
    held = compare(numbers(cells), value)
    if sign in ("=", "==", "!="):
        texts = cells.map(lambda cell: "" if missing(cell) else str(cell).strip().casefold())
        alike = compare(texts, found[3].strip().casefold())
        held = held & alike if sign == "!=" else held | alike
    elif np.isnan(value):
        raise ValueError(f"--where has {condition!r}; expected a number after {sign}")
    if not held.any():
        shown = ", ".join(map(str, cells.drop_duplicates()[:8]))
        raise ValueError(f"no row of {source} has {condition}; {column} holds {shown}")
    return column, sign, held


def _variant_name(cell: Any) -> str:
    # "none" names a variant without something; a cell without a value none at all.
    absent = missing(cell) and str(cell).strip().lower() != "none"
    return ALL if absent or cell is None else str(cell)


def _have_finished(states: pd.Series) -> pd.Series:
    return states.map(lambda one: bool(_FINISHED.fullmatch(str(one).strip())))


def _flags(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return for each column of flags which runs have finished by it.

    A column that has anything but yes and no, or by which none has finished, is no such flag; a
    run without a value is taken to have finished.
    """
    found = {}
    for column in names_of(rows):
        flag = _FLAG.fullmatch(plain(re.split(r"[./:]", column)[-1]))
        if flag is None:
            continue
        texts = rows[column].map(lambda cell: "" if missing(cell) else str(cell).strip().lower())
        finished = texts.isin(_YES if flag[1] else _NO)
        if texts.isin((*_YES, *_NO, "")).all() and finished.any():
            found[column] = finished | (texts == "")
    return found
