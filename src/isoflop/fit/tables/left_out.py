"""Rows that no fit uses: why, how many, and the first of each kind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd


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
    """Which rows are still in, and why the others are not: the first reason stands."""

    def __init__(self, rows: int) -> None:
        self._reasons = np.full(rows, "", dtype=object)
        self._values = np.full(rows, None, dtype=object)

    @property
    def kept(self) -> np.ndarray:
        """Return a flag per row."""
        return np.asarray(self._reasons == "", dtype=bool)

    def leave(
        self,
        wrong: pd.Series | np.ndarray,
        reason: str,
        cells: pd.Series | np.ndarray | None = None,
    ) -> None:
        """Leave rows out for a reason that stands in one of their cells, or in none."""
        now = np.asarray(wrong, dtype=bool) & self.kept
        self._reasons[now] = reason
        if cells is not None:
            told = np.asarray(cells, dtype=object)
            for at in np.flatnonzero(now)[:1]:
                self._values[at] = " ".join(str(told[at]).split())[:40]

    def left_out(self) -> tuple[LeftOutRows, ...]:
        """Return the reasons in the order of the rows that they concern first."""
        found = []
        for reason in dict.fromkeys(self._reasons.tolist()):
            if reason:
                here = self._reasons == reason
                first = int(np.argmax(here))
                found.append(LeftOutRows(reason, int(here.sum()), first + 1, self._values[first]))
        return tuple(found)
