"""Tables of runs as people keep them become the frame that fits take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.choosing import keep_best, keep_last
from isoflop.fit.tables.files.formats import read_rows
from isoflop.fit.tables.files.grid import Rows
from isoflop.fit.tables.frame import COLUMNS, TOLD, TOLERANCE, group_budgets
from isoflop.fit.tables.plausible import check_units, loss_warning
from isoflop.fit.tables.repeats import checkpoint_warning, repeat_warnings
from isoflop.fit.tables.sieve import LeftOutRows, Sieve
from isoflop.fit.tables.wanted import AXES, find_wanted


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

    A file is text with any usual separator, JSON (lines, lists, columns), Parquet, Feather, Arrow
    or Excel, and may be compressed (gz, bz2, xz, zst). Numbers may be written as 75M, 1.4B, 3,0966,
    1 000 000 or 6.0e18 FLOPs, and names of columns may have a unit: `params (M)`.

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
    read = read_rows(source) if isinstance(source, Path) else Rows(source, "")
    sieve = _sieved(read, "the table" if read.table is source else str(source), columns or {})
    if cluster is not None:
        sieve.add_clusters(cluster)
    sieve.leave_broken(read.broken)
    flags = sieve.leave_unfinished(_names(where))
    sieve.leave_unusable()
    values, wanted = sieve.values, sieve.wanted
    check_units(values[sieve.kept], wanted, sieve.source)
    for axis in AXES:
        if axis not in values:
            values[axis] = _third(values, axis)
    notes: list[str] = []
    warnings: list[str] = []
    if last_of is not None:
        notes.append(keep_last(sieve, last_of))
    if best_of:
        note, at_edge = keep_best(sieve, _names(best_of), tolerance)
        (warnings if at_edge else notes).append(note)
    copies = values[sieve.kept].duplicated(keep="first")
    sieve.leave(copies, "the row is a copy of an earlier one")
    kept, rows = values[sieve.kept].copy(), sieve.rows[sieve.kept]
    told = (loss_warning(kept, wanted), checkpoint_warning(kept, rows, wanted))
    warnings += [one for one in told if one is not None]
    used = {column for one in wanted.values() for column in one.used}
    used |= {*flags, *_names(best_of), *(one for one in (cluster, last_of) if one is not None)}
    warnings += repeat_warnings(kept, rows, used)
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


def _names(given: Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def _sieved(read: Rows, source: str, columns: Mapping[str, str]) -> Sieve:
    rows = read.table.reset_index(drop=True)
    rows.columns = pd.Index([str(name) for name in rows])
    if rows.empty:
        raise ValueError(f"{source} has no rows; expected a row for each run")
    return Sieve(rows, find_wanted(rows, columns, source), source)


def _third(values: pd.DataFrame, axis: str) -> pd.Series:
    """Return the axis that a table lacks, from C = 6 N D."""
    if axis == "budget_flops":
        return 6 * values["parameters"] * values["tokens"]
    other = "tokens" if axis == "parameters" else "parameters"
    return values["budget_flops"] / (6 * values[other])


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
        "training_flops": rows["training_flops"],
    }
    table = pd.DataFrame(given, index=rows.index).reset_index(drop=True)
    table = table.reindex(columns=[*COLUMNS, "training_flops"])
    table = table.astype({**COLUMNS, "training_flops": "float64"})
    if "cluster" in rows:
        table["cluster"] = rows["cluster"].to_numpy()
    return table
