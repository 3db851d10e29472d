"""Fits and predictions from whatever holds runs: a study, its records, or any table."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from isoflop.config import BlockAttention, Frozen, ModelConfig, Own, RandomK, RunRecord, Study, TopK
from isoflop.config.load import load_study
from isoflop.fit import (
    FitResult,
    FitSettings,
    RunTable,
    ScalingFit,
    compare_surfaces,
    fit_runs,
    fit_scaling,
    frame,
    leave_largest_out,
    predict,
    predict_point,
    run_table,
    training_curves,
)
from isoflop.fit.compare.surfaces import SurfaceComparison
from isoflop.fit.predictions import Miss, PointPrediction, Prediction
from isoflop.fit.surfaces.sample import fit_surfaces
from isoflop.fit.tables.files import is_json_table
from isoflop.report.registration import register
from isoflop.runs import ENDINGS, read_records
from isoflop.sweep.ledger import RESULTS, Folders
from isoflop.sweep.status import trained

STUDY_FILES = (".toml", ".json")
ONE_SIZE = (
    "Every run starts from a checkpoint, in the one size that it has, where there is no minimum: "
    "`isoflop report` compares variants there by their seeds."
)


@dataclass(frozen=True)
class Reading:
    """What is said of a table's rows, and where a study's committed records lie."""

    columns: tuple[str, ...] = ()
    """`NAME=COLUMN` of columns with names of their own, or arithmetic on them."""
    where: tuple[str, ...] = ()
    """`COLUMN=VALUE` of the rows to take; also !=, <, >, <= and >=."""
    last_of: str | None = None
    """Column, such as step, by which the last row of each run is taken."""
    best_of: tuple[str, ...] = ()
    """Settings that were searched: the best counts at each size and number of tokens."""
    tolerance: float = 0.1
    """Budgets this near to each other count as one."""
    cluster: str | None = None
    """Column whose value is shared by runs that share noise."""
    results: Path = RESULTS
    per: Literal["token", "byte"] = "token"
    """What losses of records are per: bits per byte of text compare between tokenizers."""

    def of(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        """Return records with their losses as asked for."""
        return [one.per_byte() if self.per == "byte" else one for one in records]

    def unit(self, records: Sequence[RunRecord]) -> str | None:
        """Return what the losses of records are in, where all have the same."""
        units = {record.config.data.loss_unit for record in records}
        return "bits per byte" if self.per == "byte" else units.pop() if len(units) == 1 else None

    def settings(
        self, given: FitSettings, study: Study | None, records: Sequence[RunRecord]
    ) -> FitSettings:
        """Return settings with a study's margin, if they have none: in the unit of the losses."""
        told = given if study is None else given.of_study(study)
        if given.margin or not told.margin or self.per == "token":
            return told
        nat = next((one.bits_per_nat for one in records if one.bits_per_nat), 1.0)
        return replace(told, margin=told.margin * nat)


@dataclass(frozen=True)
class Fitted:
    """A fit, and what it is of."""

    result: FitResult | ScalingFit
    """The second of a study that names its sizes."""
    runs: RunTable | None
    """None of such a study."""
    study: Study | None
    """None of a table, and of records alone."""
    loss_unit: str | None
    """What losses are in, where that is known."""


class BudgetPrediction(Frozen):
    """The optimum at a budget, and that of the largest known one from the smaller ones."""

    predictions: tuple[Prediction, ...]
    leave_largest_out: tuple[Miss, ...]


class SizePrediction(Frozen):
    """The loss of a stated size and number of tokens."""

    predictions: tuple[PointPrediction, ...]
    comparisons: tuple[SurfaceComparison, ...]
    """Every other variant against the baseline there."""


def fit_study(
    source: Study | Path,
    settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
    *,
    baseline: str | None = None,
    reading: Reading = Reading(),
) -> Fitted:
    """Fit loss against size and tokens, with intervals, and compare variants.

    Args:
        source: a study or its file, `records.jsonl.gz` as `export_study` writes it, or any table.
        settings: of the fits; the study's margin holds if it has none, and the column that tells
            clusters is the reading's.
        baseline: whom the others are held against; the study's, or the first, if left out.
        reading: how the runs are read.

    Raises:
        ValueError: nothing there can be fitted; in one line.
    """
    study = _study(source)
    whom = baseline or (None if study is None else study.baseline_variant.name)
    if study is not None and study.scaling is not None:
        _refuse_options_of_tables(study, _file(source), reading)
        if reading.cluster is not None:
            raise ValueError(f"--cluster is of surfaces, and study {study.name} has none")
        ledger = trained(study, Folders.of(study).root, reading.results, _file(source))
        settings = reading.settings(settings, study, ledger.own)
        scaled = fit_scaling(
            reading.of(ledger.own),
            ledger.runs.variant_of,
            baseline=whom or study.baseline_variant.name,
            margin=settings.margin,
            level=settings.level,
        )
        return Fitted(scaled, None, study, reading.unit(ledger.own))
    found, settings = _runs(source, study, settings, reading)
    if study is not None and study.start is not None:
        found = replace(found, notes=(*found.notes, ONE_SIZE))
    names = found.table["variant"].drop_duplicates().tolist()
    if baseline is not None and baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    result = fit_runs(
        found.table,
        replace(settings, cluster=None if reading.cluster is None else "cluster"),
        baseline=whom,
        curves=found.curves,
        loss_unit=found.loss_unit,
    )
    return Fitted(result, found, study, found.loss_unit)


def predict_study(
    source: Study | Path,
    at: float | tuple[float, float],
    settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
    *,
    reading: Reading = Reading(),
    register_as: Path | None = None,
) -> tuple[BudgetPrediction | SizePrediction, RunTable]:
    """Predict the optimum at a budget not trained yet, or the loss of a size and tokens.

    Args:
        source: as of `fit_study`; not a study that names its sizes.
        at: training FLOPs, or parameters and tokens.
        settings: of the fits.
        reading: how the runs are read.
        register_as: file that the optimum is written to before it is trained.

    Returns:
        The prediction, and the runs that it is from.

    Raises:
        ValueError: as `fit_study`, or the file exists, or runs at that budget are known already.
    """
    study = _study(source)
    if register_as is not None and reading.per == "byte":
        raise ValueError("--register writes down losses per token; expected no --per with it")
    found, _ = _runs(source, study, settings, reading)
    if isinstance(at, tuple):
        baseline = None if study is None else study.baseline_variant.name
        return _at_size(found, at, settings, baseline), found
    made = predict(found.table, at, settings)
    tested = leave_largest_out(found.table, settings)
    if register_as is not None:
        name = study.name if study else _file(source).name
        register(register_as, name, found.table, made)
    return BudgetPrediction(predictions=made, leave_largest_out=tested), found


def _at_size(
    runs: RunTable, at: tuple[float, float], settings: FitSettings, baseline: str | None
) -> SizePrediction:
    finished = runs.table[runs.table["state"] == "finished"]
    names: list[str] = finished["variant"].drop_duplicates().tolist()
    samples = fit_surfaces(finished, names, settings)
    made = predict_point(finished, *at, settings=settings, samples=samples)
    reference = baseline if baseline is not None and baseline in names else names[0]
    compared = compare_surfaces(finished, reference, settings=settings, at=at, samples=samples)
    return SizePrediction(predictions=made, comparisons=compared)


def _study(source: Study | Path) -> Study | None:
    """Return the study that a source is or names; None for a table, also as JSON, and records."""
    if isinstance(source, Study):
        return source
    named = source.suffix.lower() in STUDY_FILES and not is_json_table(source)
    return load_study(source) if named else None


def _file(source: Study | Path) -> Path:
    return Path(f"{source.name}.toml") if isinstance(source, Study) else source


def _runs(
    source: Study | Path, study: Study | None, settings: FitSettings, reading: Reading
) -> tuple[RunTable, FitSettings]:
    """Return the runs of a study, those of exported records, or a table's, and their settings."""
    path = _file(source)
    if settings.seed < 0:
        raise ValueError(f"seed is {settings.seed}; expected 0 or more")
    if study is None and not _holds_records(path):
        if reading.per == "byte":
            told = f"--per is of records, but {path} is a table"
            raise ValueError(f"{told}; expected --columns loss=COLUMN, its bits per byte")
        table = run_table(
            path,
            columns=_mapping(reading.columns),
            tolerance=reading.tolerance,
            cluster=reading.cluster,
            last_of=reading.last_of,
            best_of=reading.best_of,
            where=reading.where,
        )
        return table, settings
    _refuse_options_of_tables(study, path, reading)
    if study is not None and study.scaling is not None:
        raise ValueError(
            f"study {study.name} names its sizes, so that no optimum at a budget follows from "
            f"it; `isoflop fit {path}` shows its projections"
        )
    found, records = _recorded_runs(study, path, reading)
    return found, reading.settings(settings, study, records)


def _refuse_options_of_tables(study: Study | None, path: Path, reading: Reading) -> None:
    for name in ("columns", "where", "last_of", "best_of"):
        if getattr(reading, name):
            kind = "records" if study is None else "a study"
            raise ValueError(f"--{name.replace('_', '-')} is of a table, but {path} is {kind}")


def _recorded_runs(
    study: Study | None, path: Path, reading: Reading
) -> tuple[RunTable, list[RunRecord]]:
    """Return the runs of a study, or of a file of records."""
    notes: tuple[str, ...] = ()
    off_ladder: Collection[str] = ()
    if study is None:
        records = read_records(path)
        names = _described(records)
        if all(record.config.budget_flops is None for record in records):
            raise ValueError("none of these runs has a budget; fit a table of them instead")
        notes = (
            "Variants are named by routing and attention, and every shape counts as one of their "
            "ladder; the study file says more.",
        )
    else:
        ledger = trained(study, Folders.of(study).root, reading.results, path)
        names, off_ladder = ledger.runs.variant_of, ledger.runs.off_ladder
        order = [variant.name for variant in study.variants]
        records = [record for record in ledger.records if record.run_id in names]
        records.sort(key=lambda record: order.index(names[record.run_id]))
    warnings, told = _between_tokenizers(records, reading)
    shown = reading.of(records)
    table = frame(shown, names, off_ladder=off_ladder)
    cluster = reading.cluster
    if cluster is not None and cluster not in table:
        raise ValueError(f"--cluster is {cluster!r}; expected one of {list(table)}")
    if cluster is not None:
        table = table.assign(cluster=table[cluster])
    unit, curves = reading.unit(records), training_curves(shown)
    notes = (*notes, *told)
    return RunTable(table, (), notes, loss_unit=unit, curves=curves, warnings=warnings), records


def _between_tokenizers(
    records: Sequence[RunRecord], reading: Reading
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what is to be warned of and noted where losses are per token."""
    nats = [one for record in records if (one := record.bits_per_nat)]
    tokenizers = {one.config.data.tokenizer for one in records}
    if reading.per == "token" and len(tokenizers) > 1:
        why = "These runs have several tokenizers, between which losses per token do not compare"
        return (f"{why}; --per byte tells losses that do.",), ()
    if reading.per == "byte" or tokenizers == {"bytes"} or not nats:
        return (), ()
    nat = f"A nat per token is {nats[0]:.4f} bits per byte of the test text"
    return (), (f"{nat}; --per byte tells losses so.",)


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


def _described(records: Sequence[RunRecord]) -> dict[str, str]:
    """Return a name for what each run is, with its tokenizer where there are several."""
    several = len({one.config.data.tokenizer for one in records}) > 1
    return {
        one.run_id: _model_words(one.config.model)
        + (f", {one.config.data.tokenizer_name}" if several else "")
        for one in records
    }


def _model_words(model: ModelConfig) -> str:
    match model.depth:
        case TopK(capacity=capacity) | RandomK(capacity=capacity):
            blocks = model.depth.blocks
            where = f"every {model.depth.every}" if blocks is None else f"blocks {list(blocks)}"
            depth = f"{model.depth.kind} {capacity:.4g} {where}"
        case Own():
            depth = model.depth.described
        case _:
            depth = model.depth.kind
    words = [one.described for part, one in model.own.items() if part != "depth"]
    if isinstance(model.attention, BlockAttention):
        words.insert(0, model.attention.described)
    return ", ".join([depth, *words])


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
