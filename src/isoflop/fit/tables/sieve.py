"""Which rows of a table hold a run that fits can use, and why the others do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.names import plain
from isoflop.fit.tables.numbers import missing, number, numbers
from isoflop.fit.tables.wanted import AXES, Wanted, column_named, shown_names

ALL = "all runs"
"""Name of the variant where a table has no such column."""
LARGEST_NUMBER = 1e50
"""Of a column, and its inverse the smallest; products of larger ones would overflow."""
UNKNOWN = "its state is none that is known"

_POSITIVE = ("loss", *AXES, "forward_flops")
_CONDITION = re.compile(r"(?P<column>.+?)\s*(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<value>.*)", re.DOTALL)
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
_FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(
        ("success", "successful", "succeeded", "finished", "completed", "is_finished", "done"), True
    ),
    **dict.fromkeys(
        ("failed", "failure", "is_failed", "crashed", "diverged", "is_diverged", "has_nan"), False
    ),
}
"""Columns of yes and no, and what they hold for a run that has finished."""
_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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

    def __init__(self, rows: pd.DataFrame, wanted: Mapping[str, Wanted], source: str) -> None:
        self.rows, self.wanted, self.source = rows, wanted, source
        texts = ("variant", "state", "run")
        self.values = pd.DataFrame(
            {name: one.values for name, one in wanted.items() if name not in texts},
            index=rows.index,
        )
        """The wanted columns of every row: floats, and the names of variants and clusters."""
        self.values["variant"] = ALL
        if "variant" in wanted:
            self.values["variant"] = wanted["variant"].values.map(_variant_name).astype(str)
        self._reasons = np.full(len(rows), "", dtype=object)
        self._cells = np.full(len(rows), None, dtype=object)

    @property
    def kept(self) -> np.ndarray:
        """Return a flag per row."""
        return np.asarray(self._reasons == "", dtype=bool)

    @property
    def left_out(self) -> tuple[LeftOutRows, ...]:
        """Return the reasons in the order of the rows that they concern first."""
        found = []
        for reason in dict.fromkeys(self._reasons.tolist()):
            if reason:
                here = self._reasons == reason
                first = int(np.argmax(here))
                found.append(LeftOutRows(reason, int(here.sum()), first + 1, self._cells[first]))
        return tuple(found)

    def leave(
        self,
        wrong: pd.Series | np.ndarray,
        reason: str,
        cells: pd.Series | np.ndarray | None = None,
    ) -> None:
        """Leave rows out for a reason that stands in one of their cells, or in none.

        Args:
            wrong: a flag per row, or per row that is kept.
            reason: the end of a sentence.
            cells: of every row.
        """
        now = self.kept
        if len(wrong) == len(now):
            now &= np.asarray(wrong, dtype=bool)
        else:
            now[now] = np.asarray(wrong, dtype=bool)
        self._reasons[now] = reason
        if cells is not None:
            told = np.asarray(cells, dtype=object)
            for at in np.flatnonzero(now)[:1]:
                self._cells[at] = " ".join(str(told[at]).split())[:40]

    def add_clusters(self, column: str) -> None:
        """Take a column as that of clusters; a run without a value is one of its own."""
        if column not in self.rows:
            known = shown_names(self.rows)
            raise ValueError(f"{self.source} has no column {column!r}; it has {known}")
        cells = self.rows[column]
        own = pd.Series([f"row {i + 1}" for i in range(len(cells))], index=cells.index)
        self.values["cluster"] = cells.map(str).where(~cells.map(missing).astype(bool), own)

    def leave_broken(self, broken: Sequence[tuple[int, str]]) -> None:
        """Leave out rows, by number, that have more fields than the header; the first of these."""
        beyond = pd.Series(dict(broken), dtype=object).reindex(range(len(self.rows)))
        self.leave(beyond.notna(), "it has more fields than the header", beyond)

    def leave_unfinished(self, where: Sequence[str]) -> tuple[str, ...]:
        """Leave out rows that do not fulfil the conditions, and runs that have not finished.

        That is by their state, or by a flag such as `diverged`. A state that is not known is taken
        where a condition chose it.

        Returns:
            The columns of flags.
        """
        for condition in where:
            held = fulfils(self.rows, condition, self.source)
            self.leave(~held, f"not {condition}")
        if "state" in self.wanted:
            state = self.wanted["state"]
            reasons = state.values.map(why_not)
            chosen = any(column_of(self.rows, one) in state.used for one in where)
            for reason in reasons.unique():
                if reason and not (chosen and reason == UNKNOWN):
                    self.leave(reasons == reason, reason, state.values)
        flags = flagged(self.rows)
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
            self.leave(~np.isfinite(values), f"{name} is infinite", cells)
            self.leave(values <= 0, f"{name} is zero or negative", cells)
            beyond = (values > LARGEST_NUMBER) | (values < 1 / LARGEST_NUMBER)
            self.leave(beyond, f"{name} is beyond what any run has", cells)
        if self.kept.any():
            return
        why = "; ".join(one.words for one in self.left_out[:6])
        state = self.wanted.get("state")
        if state is not None and (state.values.map(why_not) != "").all() and len(state.values):
            states = [str(one)[:40] for one in state.values.drop_duplicates()[:6]]
            held = ", ".join(map(repr, states))
            why += (
                f'; "{state.used[0]}" holds {held}: say which have finished, such as '
                f'--where "{state.used[0]}={states[0]}", or name another column with '
                "--columns state=COLUMN"
            )
        raise ValueError(f"{self.source} has no usable run ({why})")


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


def _variant_name(cell: Any) -> str:
    # "none" names a variant without something; a cell without a value none at all.
    absent = (missing(cell) and str(cell).strip().lower() != "none") or cell is None
    return ALL if absent else str(cell)


def flagged(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return for each column of flags which runs have not finished by it.

    A column that has anything but yes and no, or by which none has finished, is no such flag; a
    run without a value is taken to have finished.
    """
    found = {}
    for column in rows:
        finished = _FLAGS.get(plain(re.split(r"[./:]", str(column))[-1]))
        if finished is None:
            continue
        # Without a value: the flag of a run that has finished.
        said = [finished if missing(cell) else _YES_OR_NO.get(_flag(cell)) for cell in rows[column]]
        known = [one for one, cell in zip(said, rows[column], strict=True) if not missing(cell)]
        if finished in known and None not in known:
            found[str(column)] = np.array([one != finished for one in said], dtype=bool)
    return found


def _flag(cell: Any) -> str:
    return re.sub(r"\.0$", "", str(cell).strip().lower())


def why_not(state: Any) -> str:
    """Return why a run in this state is left out, '' where it has finished."""
    word = " ".join(re.split(r"[\s_-]+", str(state).strip()))
    if missing(state) and not (isinstance(state, str) and _UNFINISHED.fullmatch(word)):
        return "its state is missing"
    if _FINISHED.fullmatch(word):
        return ""
    if _UNFINISHED.fullmatch(word):
        return "the run has not finished"
    return UNKNOWN
