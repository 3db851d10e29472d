"""`isoflop fit` and `isoflop predict`: whose runs are fitted."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.own_runs import own_runs
from isoflop.config import BlockAttention, ModelConfig, RandomK, RunRecord, Study, TopK
from isoflop.config.load import load_study
from isoflop.fit import RunTable, frame, run_table, training_curves
from isoflop.fit.tables.files.formats import is_json_table
from isoflop.runs import ENDINGS, read_records
from isoflop.storage import JSON
from isoflop.text import quoted

STUDY_FILES = (".toml", ".json")


def scaling_study(path: Path) -> Study | None:
    """Return the scaling study that a path names; None for anything else."""
    if not _names_study(path):
        return None
    study = load_study(path)
    return study if study.scaling is not None else None


def runs_to_fit(
    options: FitOptions, runs: Path, *, cluster: str | None = None
) -> tuple[RunTable, Study | None]:
    """Return the runs that a path names: a study's, those of exported records, or a table's.

    Args:
        options: with the path of a study file, of `records.jsonl.gz` as `isoflop export` writes it,
            or of any table.
        runs: folder of the study's own folder.
        cluster: column that goes into a column `cluster` of the runs.

    Raises:
        ValueError: nothing there can be fitted; in one line.
    """
    path = options.runs
    if options.seed < 0:
        raise ValueError(f"seed is {options.seed}; expected 0 or more")
    if _names_study(path):
        _refuse_row_options(options, "a study")
        study = load_study(path)
        if study.scaling is not None:
            raise ValueError(
                f"study {study.name} names its sizes, so that no optimum at a budget follows from "
                f"it; `isoflop fit {path}` shows its projections"
            )
        found = _study_runs(study, runs / study.name, options.results, path)
        return _with_cluster(found, cluster), study
    if _holds_records(path):
        _refuse_row_options(options, "records")
        return _with_cluster(_record_runs(read_records(path)), cluster), None
    found = run_table(
        path,
        columns=_mapping(options.columns),
        tolerance=options.tolerance,
        cluster=cluster,
        last_of=options.last_of,
        best_of=options.best_of,
        where=options.where,
    )
    return found, None


def _refuse_row_options(options: FitOptions, what: str) -> None:
    """Refuse what is said about rows of a table where there is none."""
    for name in ("where", "last_of", "best_of"):
        if getattr(options, name):
            raise ValueError(
                f"--{name.replace('_', '-')} chooses rows of a table, but {options.runs} is {what}"
            )


def _names_study(path: Path) -> bool:
    """Return whether a path names a study, rather than a table as JSON."""
    return path.suffix.lower() in STUDY_FILES and not is_json_table(path)


def said_json(runs: RunTable) -> dict[str, JSON]:
    """Return what was understood of a table, and what was assumed and doubted, as JSON."""
    return {
        "understood": runs.understood or None,
        "warnings": list(runs.warnings),
        "notes": list(runs.notes),
    }


def said_lines(runs: RunTable) -> Iterator[RenderableType]:
    """Yield the same, but for what was assumed, as lines; nothing of a study's records."""
    if runs.understood:
        yield Text(quoted(runs.understood))
    for warning in runs.warnings:
        yield Text(quoted(f"Warning: {warning}"))


def _with_cluster(runs: RunTable, cluster: str | None) -> RunTable:
    """Return runs of records with one of their columns as `cluster`."""
    if cluster is None:
        return runs
    if cluster not in runs.table:
        raise ValueError(f"--cluster is {cluster!r}; expected one of {list(runs.table)}")
    return replace(runs, table=runs.table.assign(cluster=runs.table[cluster]))


def _study_runs(study: Study, root: Path, results: Path, file: Path) -> RunTable:
    records, runs = own_runs(study, root, results, file)
    own = [record for record in records if record.run_id in runs.variant_of]
    order = [variant.name for variant in study.variants]
    own.sort(key=lambda record: order.index(runs.variant_of[record.run_id]))
    table = frame(own, runs.variant_of, off_ladder=runs.off_ladder)
    return RunTable(table, (), (), loss_unit=_loss_unit(own), curves=training_curves(own))


def _loss_unit(records: Sequence[RunRecord]) -> str | None:
    """Return what the losses of records are in, None where that is not the same for all."""
    units = {record.config.data.loss_unit for record in records}
    return units.pop() if len(units) == 1 else None


def _holds_records(path: Path) -> bool:
    """Return whether a file holds records as `isoflop export` writes them."""
    if not path.name.lower().endswith(ENDINGS) or not path.is_file():
        return False
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            row = json.loads(file.readline())
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile):
        return False
    return isinstance(row, dict) and {"run_id", "config", "data_sha256"} <= row.keys()


def _record_runs(records: Sequence[RunRecord]) -> RunTable:
    names = {record.run_id: _described(record.config.model) for record in records}
    if len({record.config.budget_flops for record in records} - {None}) == 0:
        raise ValueError("none of these runs has a budget; fit a table of them instead")
    note = (
        "Variants are named by routing and attention, and every shape counts as one of their "
        "ladder; the study file says more."
    )
    return RunTable(
        frame(records, names),
        (),
        (note,),
        loss_unit=_loss_unit(records),
        curves=training_curves(records),
    )


def _described(model: ModelConfig) -> str:
    match model.depth:
        case TopK(capacity=capacity) | RandomK(capacity=capacity):
            where = (
                f"every {model.depth.every}"
                if model.depth.blocks is None
                else f"blocks {list(model.depth.blocks)}"
            )
            depth = f"{model.depth.kind} {capacity:.4g} {where}"
        case _:
            depth = model.depth.kind
    if isinstance(model.attention, BlockAttention):
        return f"{depth}, {model.attention.described}"
    return depth


def _mapping(columns: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in columns:
        name, equals, column = (part.strip() for part in one.partition("="))
        if not equals or not name or not column or name in found:
            raise ValueError(
                f"--columns has {one!r}; expected NAME=COLUMN with each name once, such as "
                "loss=final_loss or tokens=step*batch"
            )
        found[name] = column
    return found
