"""Which rows of a table hold a run that fits can use, and why the others do not."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.columns import Column, column_named
from isoflop.fit.tables.names import AXES, TEXTS, names_of, plain
from isoflop.fit.tables.numbers import missing, number, numbers

ALL = "all runs"
"""Name of the variant where a table has no such column."""
LARGEST_NUMBER = 1e50
"""Of a column, and its inverse the smallest; products of larger ones would overflow."""
UNKNOWN = "its state is none that is known"

_POSITIVE = ("loss", *AXES, "forward_flops")
_FINISHED = re.compile(
    r"finish(?:ed)?|completed?|success(?:ful)?|succeeded|done|ok|ended|passed|true|yes",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(
    r"fail(?:ed|ure)?|crash(?:ed)?|killed|running|pending|queued|scheduled|starting|created"
    r"|cancell?ed|preempt(?:ed|ing)|diverged|nan|oom|out of memory|time(?:d )?out|error(?:ed)?"
    r"|aborted|interrupted|stopped|suspended|unfinished|incomplete|not (?:finished|started)"
    r"|node fail|false|no",
    re.IGNORECASE,
)
_FLAG = re.compile(
    r"(success(?:ful)?|succeeded|(?:is_)?finished|completed|done)"
    r"|failed|failure|is_failed|crashed|(?:is_)?diverged|has_nan"
)
"""Columns of yes and no; in the group those that hold yes for a run that has finished."""
_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_COMPARISONS = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


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
        """Return it as the end of a sentence: `7 rows: loss is infinite (first: row 3, inf)`."""
        value = "" if self.value is None else f", {self.value!r}"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{rows}: {self.reason} (first: row {self.first}{value})"


class Sieve:
    """The rows of a table with what fits want of them, of which some are left out.

    Of several reasons the first one stands.

    Args:
        rows: of the table.
        wanted: its wanted columns.
        source: what to call the table in messages.
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

    def add_clusters(self, column: str) -> None:
        """Take a column as that of clusters; a run without a value is one of its own."""
        if column not in self.rows:
            known = names_of(self.rows)[:20]
            raise ValueError(f"{self.source} has no column {column!r}; it has {known}")
        self.values["cluster"] = [
            f"row {at}" if missing(cell) else str(cell)
            for at, cell in enumerate(self.rows[column], start=1)
        ]

    def leave_unfinished(self, where: Sequence[str]) -> tuple[str, ...]:
        """Leave out rows that do not fulfil the conditions, and runs that have not finished.

        That is by their state, or by a flag such as `diverged`. A state that is not known is taken
        where a condition chose it.

        Returns:
            The columns of flags.
        """
        chosen = set()
        for condition in where:
            column, held = _fulfils(self.rows, condition, self.source)
            self.leave(~held, f"not {condition}")
            chosen.add(column)
        if state := self.wanted.get("state"):
            reasons = state.values.map(_why_not)
            for reason in reasons.unique():
                if reason and not (reason == UNKNOWN and chosen & set(state.used)):
                    self.leave(reasons == reason, reason, state.values)
        flags = _flagged(self.rows)
        for column, wrong in flags.items():
            self.leave(wrong, f"by {column} the run has not finished", self.rows[column])
        return tuple(flags)

    def leave_unusable(self) -> None:
        """Leave out rows without the positive numbers of a run.

        Raises:
            ValueError: none is left; it says what the table holds instead.
        """
        for name in (one for one in _POSITIVE if one in self.wanted):
            values, wanted = self.values[name], self.wanted[name]
            cells = values if wanted.computed else wanted.cells
            self.leave(values.isna(), f"{name} is missing or no number", cells)
            self.leave(np.isinf(values), f"{name} is infinite", cells)
            self.leave(values <= 0, f"{name} is zero or negative", cells)
            usual = values.between(1 / LARGEST_NUMBER, LARGEST_NUMBER)
            self.leave(~usual, f"{name} is beyond what any run has", cells)
        if self.kept.any():
            return
        why = "; ".join(one.words for one in self.left_out[:6])
        state = self.wanted.get("state")
        if state is not None and state.values.map(_why_not).all():
            states = [str(one)[:40] for one in state.values.drop_duplicates()[:6]]
            why += (
                f'; "{state.used[0]}" holds {", ".join(map(repr, states))}: say which have '
                f'finished, such as --where "{state.used[0]}={states[0]}", or name another column '
                "with --columns state=COLUMN"
            )
        raise ValueError(f"{self.source} has no usable run ({why})")


def _fulfils(rows: pd.DataFrame, condition: str, source: str) -> tuple[str, pd.Series]:
    """Return the column of a condition such as `seed!=3`, and which rows fulfil it.

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
    return column, held


def _variant_name(cell: Any) -> str:
    # "none" names a variant without something; a cell without a value none at all.
    absent = missing(cell) and str(cell).strip().lower() != "none"
    return ALL if absent or cell is None else str(cell)


def _flagged(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Return for each column of flags which runs have not finished by it.

    A column that has anything but yes and no, or by which none has finished, is no such flag; a
    run without a value is taken to have finished.
    """
    found = {}
    for column in names_of(rows):
        flag = _FLAG.fullmatch(plain(re.split(r"[./:]", column)[-1]))
        if flag is None:
            continue
        cells = rows[column][~rows[column].map(missing).astype(bool)]
        texts = cells.map(lambda cell: str(cell).strip().lower().removesuffix(".0"))
        finished = texts.map(_YES_OR_NO) == bool(flag[1])
        if texts.isin(_YES_OR_NO).all() and finished.any():
            found[column] = ~finished.reindex(rows.index, fill_value=True)
    return found


def _why_not(state: Any) -> str:
    """Return why a run in this state is left out, '' where it has finished."""
    word = " ".join(re.split(r"[\s_-]+", str(state).strip()))
    if missing(state) and not (isinstance(state, str) and _UNFINISHED.fullmatch(word)):
        return "its state is missing"
    if _FINISHED.fullmatch(word):
        return ""
    return "the run has not finished" if _UNFINISHED.fullmatch(word) else UNKNOWN
