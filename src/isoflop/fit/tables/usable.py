"""The wanted columns of every row, and which rows hold what a run needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.choosing import column_of, fulfils
from isoflop.fit.tables.grid import Rows
from isoflop.fit.tables.left_out import Sieve
from isoflop.fit.tables.numbers import missing
from isoflop.fit.tables.states import UNKNOWN, flagged, why_not
from isoflop.fit.tables.wanted import AXES, Wanted, shown_names

ALL = "all runs"
"""Name of the variant where a table has no such column."""
LARGEST_NUMBER = 1e50
"""Of a column, and its inverse the smallest; products of larger ones would overflow."""

_POSITIVE = ("loss", *AXES, "forward_flops")


def values_of(
    rows: pd.DataFrame, wanted: Mapping[str, Wanted], cluster: str | None, source: str
) -> pd.DataFrame:
    """Return the wanted columns of every row: floats, and the names of variants and clusters."""
    texts = ("variant", "state", "run")
    values = pd.DataFrame(
        {name: one.values for name, one in wanted.items() if name not in texts}, index=rows.index
    )
    if cluster is not None:
        if cluster not in rows:
            raise ValueError(f"{source} has no column {cluster!r}; it has {shown_names(rows)}")
        own = pd.Series([f"row {i + 1}" for i in range(len(rows))], index=rows.index)
        absent = rows[cluster].map(missing).astype(bool)
        values["cluster"] = rows[cluster].map(str).where(~absent, own)
    if "variant" in wanted:
        names = wanted["variant"].values
        values["variant"] = names.map(_variant_name).astype(str)
    else:
        values["variant"] = ALL
    return values


def _variant_name(cell: Any) -> str:
    # "none" names a variant without something; a cell without a value none at all.
    absent = (missing(cell) and str(cell).strip().lower() != "none") or cell is None
    return ALL if absent else str(cell)


def leave_unwanted(
    sieve: Sieve, rows: pd.DataFrame, read: Rows, where: Sequence[str], source: str
) -> None:
    """Leave out rows that do not fit the header or the conditions."""
    broken = np.zeros(len(rows), dtype=bool)
    beyond = np.full(len(rows), None, dtype=object)
    for at, cell in read.broken:
        broken[at], beyond[at] = True, cell
    sieve.leave(broken, "it has more fields than the header", beyond)
    for condition in where:
        sieve.leave(~fulfils(rows, condition, source), f"not {condition}")


def leave_unfinished(
    sieve: Sieve, rows: pd.DataFrame, wanted: Mapping[str, Wanted], where: Sequence[str]
) -> tuple[str, ...]:
    """Leave out runs that have not finished by their state, or by a flag such as `diverged`.

    A state that is not known is taken where a condition chose it.

    Returns:
        The columns of flags.
    """
    if "state" in wanted:
        cells = wanted["state"].values
        reasons = cells.map(why_not)
        chosen = any(column_of(rows, one) in wanted["state"].used for one in where)
        for reason in reasons.unique():
            if reason and not (chosen and reason == UNKNOWN):
                sieve.leave(reasons == reason, reason, cells)
    flags = flagged(rows)
    for column, wrong in flags.items():
        sieve.leave(wrong, f"by {column} the run has not finished", rows[column])
    return tuple(flags)


def leave_unusable(sieve: Sieve, values: pd.DataFrame, wanted: Mapping[str, Wanted]) -> None:
    """Leave out rows without the positive numbers of a run."""
    for name in (one for one in _POSITIVE if one in wanted):
        cells = wanted[name].cells if not wanted[name].computed else values[name]
        sieve.leave(values[name].isna(), f"{name} is missing or no number", cells)
        sieve.leave(~np.isfinite(values[name]), f"{name} is infinite", cells)
        sieve.leave(values[name] <= 0, f"{name} is zero or negative", cells)
        beyond = (values[name] > LARGEST_NUMBER) | (values[name] < 1 / LARGEST_NUMBER)
        sieve.leave(beyond, f"{name} is beyond what any run has", cells)


def check_any(sieve: Sieve, wanted: Mapping[str, Wanted], source: str) -> None:
    """Refuse a table of which no row is left, saying what it holds instead."""
    if sieve.kept.any():
        return
    why = "; ".join(one.words for one in sieve.left_out()[:6])
    state = wanted.get("state")
    if state is not None and (state.values.map(why_not) != "").all() and len(state.values):
        states = [str(one)[:40] for one in state.values.drop_duplicates()[:6]]
        held = ", ".join(map(repr, states))
        why += (
            f'; "{state.used[0]}" holds {held}: say which have finished, such as '
            f'--where "{state.used[0]}={states[0]}", or name another column with '
            "--columns state=COLUMN"
        )
    raise ValueError(f"{source} has no usable run ({why})")
