"""Tables of runs as people keep them: columns by many names, budgets that nearly agree."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.frame import COLUMNS
from isoflop.fit.minimum import Floats

TOLERANCE = 0.1
"""Budgets within this share of their group's middle count as one."""
ALL = "all runs"
"""Name of the variant where a table has no such column."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "loss": ("final_loss", "test_loss", "val_loss", "validation_loss", "eval_loss"),
    "parameters": (
        "params",
        "n_params",
        "num_params",
        "parameter_count",
        "model_size",
        "size",
        "n",
    ),
    "tokens": ("training_tokens", "train_tokens", "n_tokens", "num_tokens", "d"),
    "budget_flops": (
        "budget",
        "training_flop",
        "training_flops",
        "train_flops",
        "total_flops",
        "flops",
        "compute",
        "c",
    ),
    "forward_flops": ("forward_flops_per_token",),
    "variant": ("architecture", "arch"),
    "seed": (),
    "state": ("status",),
}
"""Other names of the columns, in lower case with '_' for what is not a letter or digit."""

LARGEST_NUMBER = 1e50
"""Of a column, and its inverse the smallest; products of larger ones would overflow."""

_LONGEST_HEADER = 100_000
_AXES = ("budget_flops", "parameters", "tokens")
_NUMBERS = ("loss", *_AXES, "forward_flops", "seed")


@dataclass(frozen=True)
class LeftOutRows:
    """Rows of a table that no fit uses."""

    reason: str
    rows: int
    first: int
    """Number of the first of them, counted from 1 without the header."""


@dataclass(frozen=True)
class RunTable:
    """Runs read from a table, with what was assumed and what was left out."""

    table: pd.DataFrame
    """Columns as `isoflop.fit.COLUMNS`, and `cluster` where one was asked for; `budget_flops` is
    the middle of its group."""
    left_out: tuple[LeftOutRows, ...]
    notes: tuple[str, ...]
    """What was assumed on the way, a sentence each."""
    loss_unit: str | None = None
    """What losses are in, where that is known."""
    curves: pd.DataFrame | None = None
    """Training curves, as `isoflop.fit.training_curves` makes them, where there are some."""
    understood: str = ""
    """Which column is what, and how many rows are used, in a sentence; empty for records."""
    warnings: tuple[str, ...] = ()
    """What makes a result on these runs doubtful, a sentence each."""


def read_table(
    path: Path,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
) -> RunTable:
    """Return the runs in a CSV, TSV, JSONL or Parquet file.

    Args:
        path: the file; its ending tells the format.
        columns: name in the file of each column that has another name than `ALIASES` knows.
        tolerance: as for `run_table`.
        cluster: as for `run_table`.

    Raises:
        ValueError: the file cannot be read, lacks a column, or holds no usable run.
    """
    rows = _read(path)
    return run_table(rows, columns=columns, tolerance=tolerance, cluster=cluster, source=str(path))


def run_table(
    rows: pd.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    tolerance: float = TOLERANCE,
    cluster: str | None = None,
    source: str = "the table",
) -> RunTable:
    """Return the runs in a data frame as fits want them.

    Wanted are `loss` and two of `budget_flops`, `parameters` and `tokens`; the third follows from
    C = 6 N D. `variant`, `seed`, `state` and `forward_flops` (per token; else C / (3 D)) are used
    where they are there. Without seeds every run counts as drawn on its own.

    Args:
        rows: a run each.
        columns: name in `rows` of each column that has another name than `ALIASES` knows.
        tolerance: budgets within this share of the middle of their group count as one.
        cluster: column of `rows` that goes into a column `cluster` of the runs, for `fit_runs`; a
            run without a value is a cluster of its own.
        source: what to call the table in messages.

    Raises:
        ValueError: a column is missing or named twice, or no usable run is left.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance:g}; expected a share from 0 to below 1")
    named = _named(rows, columns or {}, source)
    values = pd.DataFrame(
        {name: _numbers(rows[column]) for name, column in named.items() if name in _NUMBERS}
    )
    if cluster is not None:
        if cluster not in rows:
            raise ValueError(f"{source} has no column {cluster!r}; it has {_columns(rows)}")
        own = pd.Series([f"row {i + 1}" for i in range(len(rows))], index=rows.index)
        values["cluster"] = rows[cluster].map(str).where(rows[cluster].notna(), own)
    variants = rows[named["variant"]] if "variant" in named else pd.Series(ALL, index=rows.index)
    values["variant"] = variants.where(variants.notna(), ALL).map(str)
    finished = np.ones(len(rows), dtype=bool)
    if "state" in named:
        finished = (rows[named["state"]].map(str) == "finished").to_numpy()
    kept, left_out = _usable(values, finished)
    if not len(kept):
        why = "; ".join(f"{one.rows} rows: {one.reason}" for one in left_out)
        raise ValueError(f"{source} has no usable run ({why or 'it has no rows'})")
    notes = []
    missing = [axis for axis in _AXES if axis not in kept]
    if missing:
        kept[missing[0]] = _third(kept, missing[0])
        notes.append(f"{missing[0]} follows from C = 6 N D, which the table does not tell.")
    groups, spread = group_budgets(kept["budget_flops"].to_numpy(), tolerance)
    kept["budget_flops"] = groups
    if spread > 1e-9:
        notes.append(
            f"Budgets within {tolerance:.0%} of the middle of their group count as one; the "
            f"farthest lies {spread:.1%} from it."
        )
    table = _as_frame(kept)
    if cluster is not None:
        table["cluster"] = kept["cluster"].to_numpy()
    return RunTable(table, tuple(left_out), tuple(notes))


def group_budgets(budget_flops: Floats, tolerance: float = TOLERANCE) -> tuple[Floats, float]:
    """Return the middle of each run's group of budgets, and the largest share by which one is off.

    Walking up, a group ends where the next budget would make it wider than `tolerance` allows on
    either side of its middle. The middle is the geometric mean of the lowest and the highest.
    """
    order = np.argsort(budget_flops, kind="stable")
    ascending = budget_flops[order]
    widest = (1 + tolerance) ** 2 * (1 + 1e-12)
    middles = np.empty_like(ascending)
    start, farthest = 0, 0.0
    while start < len(ascending):
        stop = int(np.searchsorted(ascending, ascending[start] * widest, side="right"))
        low, high = ascending[start], ascending[stop - 1]
        middle = low if low == high else math.sqrt(low) * math.sqrt(high)
        middles[start:stop] = middle
        farthest = max(farthest, float(high / middle - 1))
        start = stop
    grouped = np.empty_like(middles)
    grouped[order] = middles
    return grouped, farthest


def _read(path: Path) -> pd.DataFrame:
    ending = path.suffix.lower()
    readers: Mapping[str, Any] = {
        ".csv": lambda file: _separated(file, ","),
        ".tsv": lambda file: _separated(file, "\t"),
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
    }
    if ending not in readers:
        raise ValueError(f"{path} ends in {ending!r}; expected one of {', '.join(readers)}")
    try:
        table: pd.DataFrame = readers[ending](path)
    except (OSError, ValueError, RecursionError, UnicodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise ValueError(f"{path} does not exist; expected a table of runs") from None
        problem = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} cannot be read as {ending[1:]} ({problem})") from None
    return table.reset_index(drop=True)


def _separated(path: Path, separator: str) -> pd.DataFrame:
    with path.open("rb") as file:
        header = file.readline(_LONGEST_HEADER + 1)
    if len(header) > _LONGEST_HEADER:
        # The parser would take minutes and gigabytes for as many columns.
        raise ValueError(
            f"its first line is longer than {_LONGEST_HEADER:,} bytes; expected the names of "
            "columns"
        )
    table: pd.DataFrame = pd.read_csv(path, sep=separator)
    return table


def _json_lines(path: Path) -> pd.DataFrame:
    rows = []
    # Lines of JSON end in a line feed alone: other ends of lines may stand in its strings.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        rows.append(row)
    return pd.DataFrame(rows)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow
    except ImportError:
        raise ValueError("Parquet needs pyarrow; pip install 'isoflop[parquet]'") from None
    try:
        return pd.read_parquet(path)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None


def _named(rows: pd.DataFrame, columns: Mapping[str, str], source: str) -> dict[str, Any]:
    """Return the column of `rows` for each column that is there."""
    unknown = [name for name in columns if name not in ALIASES]
    if unknown:
        raise ValueError(f"columns names {unknown}; expected some of {list(ALIASES)}")
    found: dict[str, Any] = {}
    plain = {column: re.sub(r"[^a-z0-9]+", "_", str(column).lower()).strip("_") for column in rows}
    for name, aliases in ALIASES.items():
        if name in columns:
            if columns[name] not in rows:
                raise ValueError(
                    f"{source} has no column {columns[name]!r} for {name}; it has {_columns(rows)}"
                )
            found[name] = columns[name]
            continue
        exact = [column for column, text in plain.items() if text == name]
        matching = exact or [column for column, text in plain.items() if text in aliases]
        if len(matching) > 1:
            raise ValueError(
                f"{source} has the columns {[str(one) for one in matching]}, and each may be "
                f"{name}; name the one meant with --columns"
            )
        if matching:
            found[name] = matching[0]
    axes = [axis for axis in _AXES if axis in found]
    if "loss" not in found or len(axes) < 2:
        raise ValueError(
            f"{source} has the columns {_columns(rows)}; expected loss and "
            f"two of {', '.join(_AXES)}: map other names with --columns"
        )
    return found


def _columns(rows: pd.DataFrame) -> list[str]:
    """Return the names of the first columns, for a message."""
    return [str(column) for column in rows][:20]


def _numbers(column: pd.Series) -> pd.Series:
    """Return a column as floats; what is no number becomes NaN."""
    if column.dtype.kind in "bmMc":
        return pd.Series(np.nan, index=column.index)
    return column.map(_number).astype("float64")


def _number(value: Any) -> float:
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _usable(values: pd.DataFrame, finished: np.ndarray) -> tuple[pd.DataFrame, list[LeftOutRows]]:
    """Return the rows that fits can use, and the others by the first thing wrong with them."""
    reasons = np.full(len(values), "", dtype=object)

    def leave(wrong: pd.Series | np.ndarray, reason: str) -> None:
        reasons[np.asarray(wrong, dtype=bool) & (reasons == "")] = reason

    leave(~finished, "the run has not finished")
    for name in (n for n in ("loss", *_AXES, "forward_flops") if n in values):
        leave(values[name].isna(), f"{name} is missing or no number")
        leave(~np.isfinite(values[name]), f"{name} is infinite")
        leave(values[name] <= 0, f"{name} is zero or negative")
        beyond = (values[name] > LARGEST_NUMBER) | (values[name] < 1 / LARGEST_NUMBER)
        leave(beyond, f"{name} is beyond what any run has")
    same = values[reasons == ""].duplicated(keep="first")
    copies = np.zeros(len(values), dtype=bool)
    copies[np.flatnonzero(reasons == "")] = same.to_numpy()
    leave(copies, "the row is a copy of an earlier one")
    left_out = [
        LeftOutRows(reason, int((reasons == reason).sum()), int(np.argmax(reasons == reason)) + 1)
        for reason in dict.fromkeys(reasons.tolist())
        if reason
    ]
    return values[reasons == ""].copy(), left_out


def _third(rows: pd.DataFrame, missing: str) -> pd.Series:
    match missing:
        case "budget_flops":
            return 6 * rows["parameters"] * rows["tokens"]
        case "parameters":
            return rows["budget_flops"] / (6 * rows["tokens"])
        case _:
            return rows["budget_flops"] / (6 * rows["parameters"])


def _as_frame(rows: pd.DataFrame) -> pd.DataFrame:
    # Runs without a seed share none: each gets a number of its own.
    seeds = rows.get("seed", pd.Series(np.nan, index=rows.index))
    given: Mapping[str, Sequence[Any] | pd.Series | float | bool | str | int] = {
        "variant": rows["variant"],
        "run_id": [f"row {number + 1}" for number in rows.index],
        "state": "finished",
        "on_ladder": True,
        "budget_flops": rows["budget_flops"],
        "seed": seeds.where(seeds.notna(), -1.0 - np.arange(len(rows))),
        "blocks": 0,
        "width": 0,
        "parameters": rows["parameters"],
        "non_embedding": np.nan,
        "tokens": rows["tokens"],
        # Backward is twice forward.
        "forward_flops": rows.get("forward_flops", rows["budget_flops"] / (3 * rows["tokens"])),
        "loss": rows["loss"],
        "validation_loss": np.nan,
        "top_k_loss": np.nan,
        "bits_per_byte": np.nan,
    }
    table = pd.DataFrame(given, columns=list(COLUMNS), index=rows.index).reset_index(drop=True)
    return table.astype(dict(COLUMNS))
