"""Tables of runs as people keep them become the frame that fits take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from isoflop.fit.tables.columns import column_named, find_columns
from isoflop.fit.tables.doubts import check_units, doubts
from isoflop.fit.tables.files import read_rows
from isoflop.fit.tables.frame import COLUMNS, TOLD, TOLERANCE, group_budgets
from isoflop.fit.tables.lines import Rows
from isoflop.fit.tables.names import AXES, names_of
from isoflop.fit.tables.numbers import missing
from isoflop.fit.tables.sieve import LeftOutRows, Sieve, keep_best, keep_last


@dataclass(frozen=True)
class RunTable:
    """Runs read from a table, with what was understood and what was left out."""

    table: pd.DataFrame
    """Columns as `isoflop.fit.tables.frame.COLUMNS`, `training_flops` (each run's own compute,
    where `budget_flops` is the middle of its group), and `cluster` where one was asked for."""
    left_out: tuple[LeftOutRows, ...]
    notes: tuple[str, ...]
    """What was assumed on the way, a sentence each."""
    loss_unit: str | None = None
    """What losses are in, where that is known."""
    curves: pd.DataFrame | None = None
    """Training curves, as `isoflop.fit.training_curves` makes them, where there are some."""
    understood: str = ""
    """Which column is what, in which unit, and how many rows are used: one line."""
    warnings: tuple[str, ...] = ()
    """What in the table is likely not meant to be fitted as one, a sentence each."""


def run_table(
    source: pd.DataFrame | Path,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
    last_of: str | None = None,
    best_of: Sequence[str] = (),
    where: Sequence[str] = (),
) -> RunTable:
    """Return the runs in a data frame or a file as fits want them.

    Wanted are `loss` and two of `budget_flops`, `parameters` and `tokens`; the third follows from
    C = 6 N D. `variant`, `seed`, `state` and `forward_flops` (per token; else C / (3 D)) are used
    where they are there. Without seeds every run counts as drawn on its own.

    A file is text with any usual separator, JSON, Parquet, Feather, Arrow or Excel, also packed.
    Numbers may be written as 75M or 3,0966, and names of columns may have a unit: `params (M)`.

    Args:
        source: a run each row; of a file its content tells the format.
        columns: for each column that `ALIASES` does not know, its name in the table, or arithmetic
            on columns and numbers: `{"tokens": "step*batch_tokens", "loss": "log(perplexity)"}`.
        tolerance: budgets within this share of the middle of their group count as one.
        cluster: column that goes into a column `cluster` of the runs, for `fit_runs`; a run
            without a value is a cluster of its own.
        last_of: column that grows along a run, such as `step`; of each run only its last row is
            kept.
        best_of: columns of a setting that was searched, such as `peak_lr`; of each variant, size
            and number of tokens only the runs of the setting with the lowest mean loss are kept.
        where: conditions such as `dataset=web`, all of which rows must fulfil.

    Raises:
        ValueError: the file cannot be read, a column is missing or named twice, its values cannot
            be those of language models, or no usable run is left.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance:g}; expected a share from 0 to below 1")
    read = read_rows(source) if isinstance(source, Path) else Rows(source)
    name = str(source) if isinstance(source, Path) else "the table"
    rows = read.table.reset_index(drop=True)
    rows.columns = pd.Index(_distinct(names_of(rows)))
    if rows.empty:
        raise ValueError(f"{name} has no rows; expected a row for each run")
    sieve = Sieve(rows, find_columns(rows, columns or {}, name), name)
    if cluster is not None:
        cluster = column_named(rows, cluster, "--cluster", name)
        sieve.values["cluster"] = _clusters(rows[cluster])
    beyond = rows.index.map(read.broken)
    sieve.leave(beyond.notna(), "it has more fields than the header", beyond)
    used = {column for one in sieve.wanted.values() for column in one.used}
    used |= {*sieve.leave_unfinished(where), *best_of, *filter(None, (cluster, last_of))}
    sieve.leave_unusable()
    check_units(sieve)
    values = sieve.values
    if "budget_flops" not in values:
        values["budget_flops"] = 6 * values["parameters"] * values["tokens"]
    for axis, other in (("parameters", "tokens"), ("tokens", "parameters")):
        if axis not in values:
            values[axis] = values["budget_flops"] / (6 * values[other])
    notes: list[str] = []
    warnings: list[str] = []
    if last_of is not None:
        notes.append(keep_last(sieve, last_of))
    if best_of:
        note, at_edge = keep_best(sieve, best_of, tolerance)
        (warnings if at_edge else notes).append(note)
    sieve.leave(values[sieve.kept].duplicated(), "the row is a copy of an earlier one")
    warnings += doubts(sieve, used)
    kept = values[sieve.kept].copy()
    kept["training_flops"] = kept["budget_flops"]
    kept["budget_flops"], spread = group_budgets(kept["budget_flops"].to_numpy(), tolerance)
    if spread >= TOLD:
        notes.append(
            f"Budgets within {tolerance:.0%} of the middle of their group count as one; "
            f"the farthest lies {spread:.1%} from it."
        )
    return RunTable(
        _as_frame(kept),
        sieve.left_out,
        tuple(notes),
        understood=_understood(sieve, read.words),
        warnings=tuple(warnings),
    )


def _distinct(names: list[str]) -> list[str]:
    """Return names, each once: a second `loss` becomes `loss (column 5)`."""
    again = pd.Index(names).duplicated()
    return [
        f"{name} (column {at})".lstrip() if twice or not name else name
        for at, (name, twice) in enumerate(zip(names, again, strict=True), start=1)
    ]


def _clusters(cells: pd.Series) -> list[str]:
    """Return the cluster of each run; one without a value is a cluster of its own."""
    named = enumerate(cells, start=1)
    return [f"row {at}" if missing(cell) else str(cell) for at, cell in named]


def _understood(sieve: Sieve, words: str) -> str:
    """Return in one line which column is what, and how many rows are used."""
    shown = [one.said for name, one in sieve.wanted.items() if name != "run"]
    for axis in AXES:
        if axis not in sieve.wanted:
            follows = "budget_flops = 6 N D", f"{axis} from C = 6 N D"
            shown.append(follows[axis != "budget_flops"])
    kept = int(sieve.kept.sum())
    read = f"Read ({words})" if words and words != "commas" else "Read"
    left = "; ".join(one.words for one in sieve.left_out)
    left = f", left out {left}" if left else ""
    return f"{read}: {', '.join(shown)}; {kept} of {len(sieve.kept)} rows used{left}."


def _as_frame(rows: pd.DataFrame) -> pd.DataFrame:
    # Runs without a seed share none: each gets a number of its own.
    seeds = rows.get("seed", pd.Series(np.nan, index=rows.index))
    whole = seeds.notna() & (seeds.abs() < 2**53)
    given = {
        "state": "finished",
        "on_ladder": True,
        "blocks": 0,
        "width": 0,
        # Backward is twice forward.
        "forward_flops": rows["budget_flops"] / (3 * rows["tokens"]),
        **rows,
        "run_id": [f"row {number + 1}" for number in rows.index],
        "seed": seeds.where(whole, -1.0 - np.arange(len(rows))),
    }
    names = [*COLUMNS, "training_flops", *(["cluster"] if "cluster" in rows else [])]
    table = pd.DataFrame(given, index=rows.index).reindex(columns=names).reset_index(drop=True)
    return table.astype({**COLUMNS, "training_flops": "float64"})
