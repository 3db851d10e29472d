"""Tables of runs as people keep them become the frame that fits take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.frame import COLUMNS
from isoflop.fit.tables.checkpoints import checkpoint_warning
from isoflop.fit.tables.formats import read_rows
from isoflop.fit.tables.grid import Rows
from isoflop.fit.tables.grouping import TOLD, TOLERANCE, group_budgets
from isoflop.fit.tables.left_out import LeftOutRows, Sieve
from isoflop.fit.tables.narrowing import keep_best, keep_last
from isoflop.fit.tables.plausible import check_units, loss_warning
from isoflop.fit.tables.repeats import repeat_warnings
from isoflop.fit.tables.usable import (
    check_any,
    leave_unfinished,
    leave_unusable,
    leave_unwanted,
    values_of,
)
from isoflop.fit.tables.wanted import AXES, Wanted, find_wanted


@dataclass(frozen=True)
class RunTable:
    """Runs read from a table, with what was understood and what was left out."""

    table: pd.DataFrame
    """Columns as `isoflop.fit.COLUMNS`, `training_flops` (each run's own compute, where
    `budget_flops` is the middle of its group), and `cluster` where one was asked for."""
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


@dataclass(frozen=True)
class _Choices:
    """What a user says about a table."""

    columns: Mapping[str, str]
    tolerance: float
    cluster: str | None
    last_of: str | None
    best_of: tuple[str, ...]
    where: tuple[str, ...]


def read_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
    last_of: str | None = None,
    best_of: Sequence[str] = (),
    where: Sequence[str] = (),
) -> RunTable:
    """Return the runs in a file.

    It is text with any usual separator, JSON (lines, lists, columns), Parquet, Feather, Arrow or
    Excel, and may be compressed (gz, bz2, xz, zst). Numbers may be written as 75M, 1.4B, 3,0966,
    1 000 000 or 6.0e18 FLOPs, and names of columns may have a unit: `params (M)`.

    Args:
        path: the file; its content tells the format.
        columns: as for `run_table`.
        tolerance: as for `run_table`.
        cluster: as for `run_table`.
        last_of: as for `run_table`.
        best_of: as for `run_table`.
        where: as for `run_table`.

    Raises:
        ValueError: the file cannot be read, lacks a column, or holds no usable run.
    """
    choices = _choices(columns, tolerance, cluster, last_of, best_of, where)
    return _run_table(read_rows(path), choices, str(path))


def run_table(
    rows: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
    last_of: str | None = None,
    best_of: Sequence[str] = (),
    where: Sequence[str] = (),
) -> RunTable:
    """Return the runs in a data frame as fits want them.

    Wanted are `loss` and two of `budget_flops`, `parameters` and `tokens`; the third follows from
    C = 6 N D. `variant`, `seed`, `state` and `forward_flops` (per token; else C / (3 D)) are used
    where they are there. Without seeds every run counts as drawn on its own.

    Args:
        rows: a run each.
        columns: for each column that `ALIASES` does not know, its name in `rows`, or arithmetic on
            columns and numbers: `{"tokens": "step*batch_tokens", "loss": "log(perplexity)"}`.
        tolerance: budgets within this share of the middle of their group count as one.
        cluster: column of `rows` that goes into a column `cluster` of the runs, for `fit_runs`; a
            run without a value is a cluster of its own.
        last_of: column that grows along a run, such as `step`; of each run only its last row is
            kept.
        best_of: columns of a setting that was searched, such as `peak_lr`; of each variant, size
            and number of tokens only the runs of the setting with the lowest mean loss are kept.
        where: conditions such as `dataset=web`, all of which rows must fulfil.

    Raises:
        ValueError: a column is missing or named twice, its values cannot be those of language
            models, or no usable run is left.
    """
    choices = _choices(columns, tolerance, cluster, last_of, best_of, where)
    return _run_table(Rows(rows, ""), choices, "the table")


def _choices(
    columns: Mapping[str, str] | None,
    tolerance: float,
    cluster: str | None,
    last_of: str | None,
    best_of: Sequence[str],
    where: Sequence[str],
) -> _Choices:
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance:g}; expected a share from 0 to below 1")
    return _Choices(columns or {}, tolerance, cluster, last_of, _names(best_of), _names(where))


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _run_table(read: Rows, choices: _Choices, source: str) -> RunTable:
    rows = read.table.reset_index(drop=True)
    rows.columns = pd.Index([str(name) for name in rows])
    if rows.empty:
        raise ValueError(f"{source} has no rows; expected a row for each run")
    wanted = find_wanted(rows, choices.columns, source)
    values = values_of(rows, wanted, choices.cluster, source)
    sieve = Sieve(len(rows))
    leave_unwanted(sieve, rows, read, choices.where, source)
    flags = leave_unfinished(sieve, rows, wanted, choices.where)
    leave_unusable(sieve, values, wanted)
    check_any(sieve, wanted, source)
    check_units(values[sieve.kept], wanted, source)
    notes: list[str] = []
    warnings: list[str] = []
    used = {column for one in wanted.values() for column in one.used}
    used |= {*flags, *(column for column in (choices.cluster,) if column is not None)}
    follows = [axis for axis in AXES if axis not in values]
    if follows:
        values[follows[0]] = _third(values, follows[0])
    if choices.last_of is not None:
        notes.append(keep_last(sieve, rows, values, wanted, choices.last_of, source))
        used.add(choices.last_of)
    if choices.best_of:
        best = keep_best(sieve, rows, values, choices.best_of, choices.tolerance, source)
        (warnings if best.at_edge else notes).append(best.note)
        used |= set(choices.best_of)
    copies = np.zeros(len(rows), dtype=bool)
    copies[sieve.kept] = values[sieve.kept].duplicated(keep="first").to_numpy()
    sieve.leave(copies, "the row is a copy of an earlier one")
    kept = values[sieve.kept].copy()
    told = (loss_warning(kept, wanted), checkpoint_warning(kept, rows[sieve.kept], wanted))
    warnings += [one for one in told if one is not None]
    warnings += repeat_warnings(kept, rows[sieve.kept], used)
    kept["training_flops"] = kept["budget_flops"]
    groups, spread = group_budgets(kept["budget_flops"].to_numpy(), choices.tolerance)
    kept["budget_flops"] = groups
    if spread >= TOLD:
        notes.append(
            f"Budgets within {choices.tolerance:.0%} of the middle of their group count as one; "
            f"the farthest lies {spread:.1%} from it."
        )
    return RunTable(
        _as_frame(kept),
        sieve.left_out(),
        tuple(notes),
        understood=_understood(wanted, read.words, sieve),
        warnings=tuple(warnings),
    )


def _third(rows: pd.DataFrame, missing_axis: str) -> pd.Series:
    match missing_axis:
        case "budget_flops":
            return 6 * rows["parameters"] * rows["tokens"]
        case "parameters":
            return rows["budget_flops"] / (6 * rows["tokens"])
        case _:
            return rows["budget_flops"] / (6 * rows["parameters"])


def _understood(wanted: Mapping[str, Wanted], words: str, sieve: Sieve) -> str:
    """Return in one line which column is what, and how many rows are used."""
    shown = [one.said for name, one in wanted.items() if name != "run"]
    missing_axes = [axis for axis in AXES if axis not in wanted]
    if missing_axes:
        shown.append(
            {"budget_flops": "budget_flops = 6 N D"}.get(
                missing_axes[0], f"{missing_axes[0]} from C = 6 N D"
            )
        )
    kept = int(sieve.kept.sum())
    read = f"Read ({words})" if words and words != "commas" else "Read"
    left = "; ".join(one.words for one in sieve.left_out())
    return (
        f"{read}: {', '.join(shown)}; {kept} of {len(sieve.kept)} rows used"
        + (f", left out {left}" if left else "")
        + "."
    )


def _as_frame(rows: pd.DataFrame) -> pd.DataFrame:
    # Runs without a seed share none: each gets a number of its own.
    seeds = rows.get("seed", pd.Series(np.nan, index=rows.index))
    whole = seeds.notna() & np.isfinite(seeds) & (seeds.abs() < 2**53)
    given: Mapping[str, Sequence[Any] | pd.Series | float | bool | str | int] = {
        "variant": rows["variant"],
        "run_id": [f"row {number + 1}" for number in rows.index],
        "state": "finished",
        "on_ladder": True,
        "budget_flops": rows["budget_flops"],
        "seed": seeds.where(whole, -1.0 - np.arange(len(rows))),
        "blocks": 0,
        "width": 0,
        "parameters": rows["parameters"],
        "non_embedding": rows.get("non_embedding", np.nan),
        "tokens": rows["tokens"],
        # Backward is twice forward.
        "forward_flops": rows.get("forward_flops", rows["budget_flops"] / (3 * rows["tokens"])),
        "loss": rows["loss"],
        "validation_loss": np.nan,
        "top_k_loss": np.nan,
        "bits_per_byte": np.nan,
        "training_flops": rows["training_flops"],
    }
    table = pd.DataFrame(given, index=rows.index).reset_index(drop=True)
    table = table[[*COLUMNS, *(name for name in table if name not in COLUMNS)]]
    table = table.astype({**COLUMNS, "training_flops": "float64"})
    if "cluster" in rows:
        table["cluster"] = rows["cluster"].to_numpy()
    return table
