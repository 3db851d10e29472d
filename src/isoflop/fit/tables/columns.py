"""Which column of a table is which, by its name or as a user says, and its values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.fit.tables.expressions import evaluate
from isoflop.fit.tables.names import ALIASES, AXES, TEXTS, known, names_of, plain, unit_of
from isoflop.fit.tables.numbers import Marks, Unit, missing, numbers, table_marks

_SHOWN = 20
"""Columns that a message names."""


@dataclass(frozen=True)
class Column:
    """One of the columns that fits want, as found in a table."""

    values: pd.Series
    """Floats, or cells as they are of `TEXTS`."""
    said: str
    """What was understood, such as `parameters = "Params (M)" * 1e+06`."""
    used: tuple[str, ...]
    """Columns of the table behind it."""
    computed: bool = False
    """Whether an expression says how it follows from them."""


Columns = Mapping[str, Column]


def find_columns(rows: pd.DataFrame, columns: Mapping[str, str], source: str) -> Columns:
    """Return the wanted columns that are there.

    Args:
        rows: of a table, its names as text.
        columns: column or expression for each wanted column that has another name.
        source: what to call the table in messages.

    Raises:
        ValueError: loss or two of the axes are missing, or a name may mean several columns.
    """
    unknown = [name for name in columns if name not in ALIASES]
    if unknown:
        raise ValueError(f"columns names {unknown}; expected some of {list(ALIASES)}")
    marks = table_marks(rows)
    found = {}
    for name in ALIASES:
        if name in columns:
            found[name] = _mapped(rows, name, columns[name], marks, source)
        elif (one := _named(rows, name, marks, source)) is not None:
            found[name] = one
    if all(axis in found for axis in AXES):
        # A budget "small" is none where the others tell it.
        empty = [one for one in AXES if one not in columns and found[one].values.isna().all()]
        for axis in empty[:1]:
            del found[axis]
    if "loss" not in found or sum(axis in found for axis in AXES) < 2:
        raise ValueError(
            f"{source} has the columns {names_of(rows)[:_SHOWN]}; expected loss and "
            f"two of {', '.join(AXES)}: map other names with --columns{_guesses(rows, found)}"
        )
    return found


def column_named(rows: pd.DataFrame, name: str, option: str, source: str) -> str:
    """Return the column that an option names: just so, or else in other letters.

    Raises:
        ValueError: there is none, or there are several.
    """
    if name in rows:
        return name
    alike = [column for column in names_of(rows) if plain(column) == plain(name)]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(name, names_of(rows)[:_SHOWN], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {names_of(rows)[:_SHOWN]}"
    raise ValueError(f"{source} has no column {name!r} for {option}; {hint}")


def quoted(column: str) -> str:
    """Return a column as an expression names it."""
    return column if re.fullmatch(r"[^\W\d]\w*", column) else f'"{column}"'


def _mapped(rows: pd.DataFrame, name: str, text: str, marks: Marks, source: str) -> Column:
    if text in rows or name in TEXTS or re.fullmatch(r"[^\W\d][\w.]*", text):
        column = column_named(rows, text, name, source)
        return _column(rows, name, column, unit_of(column), marks)
    try:
        values, used = evaluate(text, rows, marks)
    except ValueError as error:
        raise ValueError(
            f"--columns {name}={error}; {source} has the columns {names_of(rows)[:_SHOWN]}"
        ) from None
    if not used:
        raise ValueError(f"--columns {name}={text!r} names no column of {source}")
    return Column(values, f"{name} = {text}", used, computed=True)


def _named(rows: pd.DataFrame, name: str, marks: Marks, source: str) -> Column | None:
    """Return a wanted column by its usual names, None where there is none."""
    candidates = [
        (column, one) for column in names_of(rows) for one in known(column) if one.name == name
    ]
    if name not in TEXTS:
        # A model called "small" is no size; but where all are empty, the first is told of.
        filled = [one for one in candidates if numbers(rows[one[0]], marks).notna().any()]
        candidates = filled or [one for one in candidates if one[1].rank < 2]
    rank = min((one.rank for _, one in candidates), default=None)
    best = {column: one.unit for column, one in candidates if one.rank == rank}
    made = [_column(rows, name, column, inside, marks) for column, inside in best.items()]
    if name != "run" and len({tuple(map(str, one.values)) for one in made}) > 1:
        raise ValueError(
            f"{source} has the columns {list(best)}, and each may be "
            f"{name}; name the one meant with --columns, such as {name}={quoted(next(iter(best)))}"
        )
    return made[0] if made else None


def _column(
    rows: pd.DataFrame, name: str, column: str, inside: Unit | None, marks: Marks
) -> Column:
    cells, said = rows[column], f'{name} = "{column}"'
    if name in TEXTS:
        return Column(cells, said, (column,))
    values = numbers(cells, marks, small=name == "loss")
    if inside is not None and inside.factor != 1:
        values = values * inside.factor
        said += f" * {inside.factor:g}"
    texts = (i for i, cell in enumerate(cells) if isinstance(cell, str) and not missing(cell))
    at = next(texts, None)
    if at is not None and np.isfinite(value := values.iloc[at]):
        # What is more than a number as computers write it is told.
        plainly = pd.to_numeric(cells.iloc[at], errors="coerce") == value
        said += "" if plainly else f" ({' '.join(cells.iloc[at].split())[:30]} is {value:,.12g})"
    return Column(values, said, (column,))


def _guesses(rows: pd.DataFrame, found: Columns) -> str:
    """Return what could be mapped, by words within names, as the end of a message."""

    def having(pattern: str) -> list[str]:
        """Return the first column whose name has such words, if there is one."""
        return [quoted(one) for one in names_of(rows) if re.search(pattern, plain(one))][:1]

    steps, batch = having("^((n|num|train|global|max)_)?steps?$"), having("batch.*tok|tok.*batch")
    guesses = {
        "loss": having("^(?!.*train).*(loss|bpb)")
        or [f"log({one})" for one in having("perplexity|ppl")],
        "parameters": having("param"),
        "tokens": ["*".join((*steps, *batch))] if steps and batch else having("token(?!s?_per)"),
    }
    if "budget_flops" in found:
        guesses.pop("tokens")
    told = [f"{name}={one[0]}" for name, one in guesses.items() if one and name not in found]
    return f", such as {' '.join(told)}" if told else ""
