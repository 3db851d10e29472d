"""Which column of a table is which, by its name or as a user says, and its values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from isoflop.fit.tables.expressions import evaluate
from isoflop.fit.tables.names import ALIASES, MAPPED, Known, known, plain, unit_of
from isoflop.fit.tables.numbers import Marks, Unit, missing, numbers, table_marks

AXES = ("budget_flops", "parameters", "tokens")
NUMBERS = ("loss", *AXES, "forward_flops", "non_embedding", "seed")
_SHOWN = 20
_STEPS = ("step", "steps", "n_steps", "num_steps", "train_steps", "global_step", "max_steps")


@dataclass(frozen=True)
class Wanted:
    """One of the columns that fits want, as found in a table."""

    name: str
    values: pd.Series
    """Floats of `NUMBERS`, cells as they are of the others."""
    cells: pd.Series
    """What stands in the table, for messages."""
    said: str
    """What was understood, such as `parameters = "Params" in M`."""
    used: tuple[str, ...]
    """Columns of the table behind it."""
    computed: bool = False
    """Whether an expression says how it follows from them."""


def find_wanted(rows: pd.DataFrame, columns: Mapping[str, str], source: str) -> dict[str, Wanted]:
    """Return the wanted columns that are there.

    Args:
        rows: of a table, its names as text.
        columns: column or expression for each wanted column that has another name.
        source: what to call the table in messages.

    Raises:
        ValueError: loss or two of the axes are missing, or a name may mean several columns.
    """
    unknown = [name for name in columns if name not in MAPPED]
    if unknown:
        raise ValueError(f"columns names {unknown}; expected some of {list(MAPPED)}")
    marks = table_marks(rows)
    found: dict[str, Wanted] = {}
    for name in ALIASES:
        if name in columns:
            found[name] = _mapped(rows, name, columns[name], marks, source)
            continue
        one = _named(rows, name, marks, source)
        if one is not None:
            found[name] = one
    _leave_names_of_budgets(found, columns)
    axes = [axis for axis in AXES if axis in found]
    if "loss" not in found or len(axes) < 2:
        raise ValueError(
            f"{source} has the columns {shown_names(rows)}; expected loss and "
            f"two of {', '.join(AXES)}: map other names with --columns{_guesses(rows, found)}"
        )
    return found


def _leave_names_of_budgets(found: dict[str, Wanted], columns: Mapping[str, str]) -> None:
    """Drop an axis without any number, such as a budget "small", where the others tell it."""
    if all(axis in found for axis in AXES):
        empty = [one for one in AXES if one not in columns and found[one].values.isna().all()]
        for axis in empty[:1]:
            del found[axis]


def shown_names(rows: pd.DataFrame) -> list[str]:
    """Return the names of the first columns, for a message."""
    return [str(column) for column in rows][:_SHOWN]


def column_named(rows: pd.DataFrame, name: str, option: str, source: str) -> str:
    """Return the column that an option names: just so, or else in other letters.

    Raises:
        ValueError: there is none, or there are several.
    """
    if name in rows:
        return name
    alike = [column for column in rows if plain(str(column)) == plain(name)]
    if len(alike) == 1:
        return str(alike[0])
    near = difflib.get_close_matches(name, shown_names(rows), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {shown_names(rows)}"
    raise ValueError(f"{source} has no column {name!r} for {option}; {hint}")


def _mapped(rows: pd.DataFrame, name: str, text: str, marks: Marks, source: str) -> Wanted:
    if text in rows:
        own = next((one for one in known(text) if one.name == name), None)
        inside = own.unit if own else unit_of(text)
        return _column(rows, name, text, inside, marks)
    if name not in NUMBERS or (plain(text) and _is_name(text)):
        column = column_named(rows, text, name, source)
        return _column(rows, name, column, None, marks)

    def values_of(column: str) -> pd.Series:
        return numbers(rows[column], marks)

    try:
        values, used = evaluate(text, [str(one) for one in rows], values_of, rows.index)
    except ValueError as error:
        raise ValueError(
            f"--columns {name}={error}; {source} has the columns {shown_names(rows)}"
        ) from None
    if not used:
        raise ValueError(f"--columns {name}={text!r} names no column of {source}")
    return Wanted(name, values, rows[used[0]], f"{name} = {text}", used, computed=True)


def _is_name(text: str) -> bool:
    return text.replace("_", "").replace(".", "").isalnum() and not text[0].isdigit()


def _named(rows: pd.DataFrame, name: str, marks: Marks, source: str) -> Wanted | None:
    """Return a wanted column by its usual names, None where there is none."""
    candidates: list[tuple[str, Known]] = [
        (str(column), one) for column in rows for one in known(str(column)) if one.name == name
    ]
    if name in NUMBERS:
        numeric = [one for one in candidates if _has_numbers(rows[one[0]], marks)]
        # A model called "small" is no size; but where all are empty, the first is told of.
        candidates = numeric or [one for one in candidates if one[1].rank < 2]
    if not candidates:
        return None
    rank = min(one.rank for _, one in candidates)
    best = [(column, one) for column, one in candidates if one.rank == rank]
    made = [_column(rows, name, column, one.unit, marks) for column, one in best]
    if any(not _same(made[0].values, one.values) for one in made[1:]):
        if name == "run":
            return made[0]
        raise ValueError(
            f"{source} has the columns {[column for column, _ in best]}, and each may be "
            f"{name}; name the one meant with --columns, such as {name}={_quoted(best[0][0])}"
        )
    return made[0]


def _has_numbers(column: pd.Series, marks: Marks) -> bool:
    return bool(numbers(column, marks).notna().any())


def _same(one: pd.Series, other: pd.Series) -> bool:
    if one.dtype.kind == "f" and other.dtype.kind == "f":
        return bool(np.array_equal(one.to_numpy(), other.to_numpy(), equal_nan=True))
    return one.map(str).tolist() == other.map(str).tolist()


def _column(
    rows: pd.DataFrame, name: str, column: str, inside: Unit | None, marks: Marks
) -> Wanted:
    cells = rows[column]
    if name not in NUMBERS:
        return Wanted(name, cells, cells, f'{name} = "{column}"', (column,))
    scaled = inside is not None and inside.factor != 1
    values = numbers(cells, marks, small=name == "loss", scaled=scaled)
    said = f'{name} = "{column}"'
    if inside is not None:
        values = values * inside.factor
        said += f" in {inside.words}"
    first = next((cell for cell in cells if isinstance(cell, str) and not missing(cell)), None)
    if first is not None and not scaled and _read_differently(first, values, cells):
        value = float(values[cells == first].iloc[0])
        if np.isfinite(value):
            shown = " ".join(first.split())[:30]
            said += f" ({shown} is {value:,.12g})"
    return Wanted(name, values, cells, said, (column,))


def _read_differently(first: str, values: pd.Series, cells: pd.Series) -> bool:
    """Return whether a cell is more than a number as computers write it."""
    try:
        return float(first) != float(values[cells == first].iloc[0])
    except ValueError:
        return True


def _guesses(rows: pd.DataFrame, found: Mapping[str, Wanted]) -> str:
    """Return what could be mapped, by words within names, as the end of a message."""
    columns = [str(column) for column in rows]

    def having(*words: str) -> Sequence[str]:
        return [one for one in columns if all(word in plain(one) for word in words)]

    guesses = []
    if "loss" not in found:
        guesses += [f"loss={_quoted(one)}" for one in _losses(having)[:1]]
        perplexity = having("perplexity") or having("ppl")
        if not guesses and perplexity:
            guesses.append(f"loss=log({_quoted(perplexity[0])})")
    if "parameters" not in found:
        guesses += [f"parameters={_power(one)}" for one in having("param")[:1]]
    if "tokens" not in found and "budget_flops" not in found:
        guesses += [f"tokens={one}" for one in _products(having, found)[:1]]
    return f", such as {' '.join(guesses)}" if guesses else ""


def _losses(having: Callable[..., Sequence[str]]) -> list[str]:
    """Return columns that may be a loss, those of held-out data first."""
    found = [*having("loss"), *having("bpb"), *having("bits", "per")]
    return sorted(found, key=lambda one: "train" in plain(one))


def _products(having: Callable[..., Sequence[str]], found: Mapping[str, Wanted]) -> list[str]:
    """Return expressions that may be the number of tokens."""
    per = having("tokens", "per", "param") or having("multiplier") or having("tpp")
    if per and "parameters" in found and not found["parameters"].computed:
        return [f"{_quoted(found['parameters'].used[0])}*{_quoted(per[0])}"]
    steps = [one for one in having("step") if plain(one) in _STEPS]
    a_step = having("batch", "token") or having("tokens", "per", "step")
    batch, length = having("batch"), having("seq") or having("context") or having("block")
    if steps and (a_step or (batch and length)):
        factors = [steps[0], *(a_step[:1] or [batch[0], length[0]])]
        return ["*".join(map(_quoted, factors))]
    return [_power(one) for one in having("token")]


def _power(column: str) -> str:
    """Return a column, or ten to its power where its name says that it is a logarithm."""
    return f"10^{_quoted(column)}" if re.match(r"log_?10(?=_)", plain(column)) else _quoted(column)


def _quoted(column: str) -> str:
    return column if _is_name(column) and "." not in column else f'"{column}"'
