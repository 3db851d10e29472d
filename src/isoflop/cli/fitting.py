"""`isoflop fit`: whose runs are fitted, and how the result is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import RenderableType
from rich.text import Text

from isoflop.cli.fit_options import FitOptions
from isoflop.cli.own_runs import own_runs
from isoflop.cli.tables import Column, coefficient, table
from isoflop.config import BlockAttention, ModelConfig, RandomK, RunRecord, Study, TopK
from isoflop.config.load import load_study
from isoflop.config.problems import quoted
from isoflop.fit import (
    DRAWS_WORDS,
    ESTIMATOR_NAMES,
    FitResult,
    FittedMinimum,
    FittedSurface,
    RunTable,
    VariantFit,
    estimates_sentence,
    fraction_sentence,
    frame,
    is_json_table,
    read_table,
    sentence,
    training_curves,
)
from isoflop.report.notation import count, exponent
from isoflop.runs import read_records

STUDY_FILES = (".toml", ".json")
COEFFICIENTS = ("E", "A", "B", "alpha", "beta", "a", "b")


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
        options: with the path of a study file, of `records.jsonl` as `isoflop export` writes it,
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
        found = _study_runs(study, runs / study.name, options.results)
        return _with_cluster(found, cluster), study
    if _holds_records(path):
        _refuse_row_options(options, "records")
        return _with_cluster(_record_runs(read_records(path)), cluster), None
    found = read_table(
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


def _with_cluster(runs: RunTable, cluster: str | None) -> RunTable:
    """Return runs of records with one of their columns as `cluster`."""
    if cluster is None:
        return runs
    if cluster not in runs.table:
        raise ValueError(f"--cluster is {cluster!r}; expected one of {list(runs.table)}")
    return replace(runs, table=runs.table.assign(cluster=runs.table[cluster]))


def fit_tables(result: FitResult, runs: RunTable) -> Iterator[RenderableType]:
    """Yield what was fitted: verdicts, minima, surfaces, and what was left out or assumed."""
    for verdict in result.verdicts:
        yield Text(quoted(sentence(verdict, result.loss_unit)), style="bold")
        if len(verdict.estimates) > 1:
            yield Text(quoted(estimates_sentence(verdict)))
        if verdict.forward_fraction is not None:
            yield Text(quoted(fraction_sentence(verdict)))
    if result.verdicts:
        yield Text(
            f"Intervals are {result.level:.0%}; better, worse and equivalent are said after Holm's "
            f"correction for {len(result.verdicts)} comparisons."
        )
    yield _minima(result)
    yield from _surfaces(result)
    for name, fit in result.variants.items():
        for surface in _fitted(fit):
            if surface.status != "converged":
                yield Text(
                    quoted(f"{name}, {ESTIMATOR_NAMES[surface.estimator]}: {surface.message}.")
                )
    yield from _laws(result)
    yield from _envelopes(result)
    yield from _disagreements(result)
    for note in runs.notes:
        yield Text(quoted(note))
    for one in runs.left_out:
        yield Text(quoted(f"Left out: {one.rows} rows (first: row {one.first}): {one.reason}."))


def _study_runs(study: Study, root: Path, results: Path) -> RunTable:
    records, runs = own_runs(study, root, results)
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
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.readline()
    try:
        row = json.loads(first)
    except (ValueError, RecursionError):
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


def _minima(result: FitResult) -> RenderableType:
    columns = [
        Column("variant", wraps=True, number=False),
        Column("budget"),
        Column("estimator", number=False),
        Column("parameters"),
        Column("loss"),
        Column("interval of the loss"),
        Column("status", number=False),
    ]
    cells = [
        (
            name,
            exponent(one.budget_flops),
            ESTIMATOR_NAMES[one.estimator],
            "-" if one.parameters is None else count(one.parameters),
            "-" if one.loss is None else f"{one.loss:.4f}",
            _loss_interval(one),
            one.status,
        )
        for name, fit in result.variants.items()
        for one in _shown(fit)
    ]
    unit = f", in {result.loss_unit}" if result.loss_unit else ""
    return table(f"Minima of loss over log parameters{unit}", columns, cells)


def _shown(fit: VariantFit) -> list[FittedMinimum]:
    """Return the minima worth a line: of many budgets with too few sizes each, none."""
    found = [one for one in fit.minima if one.status != "too_few"]
    return found or list(fit.minima[:4])


def _loss_interval(one: FittedMinimum) -> str:
    if one.interval is None:
        return "-"
    return f"[{one.interval.low:.4f}, {one.interval.high:.4f}]"


def _surfaces(result: FitResult) -> Iterator[RenderableType]:
    """Yield a table per estimator: a line per coefficient, a column per variant."""
    for estimator in ("surface", "variable_projection"):
        found = {
            name: surface
            for name, fit in result.variants.items()
            for surface in _fitted(fit)
            if surface.estimator == estimator and surface.status == "converged"
        }
        if not found:
            continue
        columns = [Column("", number=False), *(Column(name, wraps=True) for name in found)]
        cells = [
            (one, *(coefficient(getattr(surface, one)) for surface in found.values()))
            for one in COEFFICIENTS
        ]
        cells.append(("runs", *(str(surface.points) for surface in found.values())))
        title = f"L = E + A / N^alpha + B / D^beta, N ~ C^a, D ~ C^b; {ESTIMATOR_NAMES[estimator]}"
        yield table(title, columns, cells)
        sources = sorted({DRAWS_WORDS[one.source] for one in found.values() if one.source})
        yield Text(f"Its intervals are by {'; '.join(sources)}.")


def _fitted(fit: VariantFit) -> list[FittedSurface]:
    return [one for one in (fit.surface, fit.variable_projection) if one is not None]


def _laws(result: FitResult) -> Iterator[Text]:
    for name, fit in result.variants.items():
        laws = [
            f"{ESTIMATOR_NAMES[law.estimator]} {law.a.value:.3f}"
            + ("" if law.a.low is None else f" [{law.a.low:.3f}, {law.a.high:.3f}]")
            for law in fit.laws
            if law.a is not None
        ]
        if laws:
            yield Text(quoted(f"{name}: optimal N ~ C^a with a = {', '.join(laws)}."))


def _envelopes(result: FitResult) -> Iterator[Text]:
    for name, fit in result.variants.items():
        found = fit.envelope
        if found is None:
            continue
        if found.a is None or found.b is None:
            yield Text(quoted(f"{name}, envelope of training curves: {found.message}."))
            continue
        a, b = (
            f"{one.value:.3f}" + ("" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]")
            for one in (found.a, found.b)
        )
        yield Text(
            quoted(
                f"{name}: envelope of training curves N ~ C^a with a = {a}, D ~ C^b with b = {b}, "
                f"{found.sizes} sizes; biased, since no run has ended there."
            )
        )


def _disagreements(result: FitResult) -> Iterator[Text]:
    """Yield a line per variant with how far its estimators are apart."""
    unit = f" {result.loss_unit}" if result.loss_unit else ""
    for name, fit in result.variants.items():
        parts = []
        if fit.minimum_disagreements:
            widest = max(one.loss for one in fit.minimum_disagreements)
            farthest = max(one.parameter_ratio for one in fit.minimum_disagreements)
            parts.append(
                f"on a minimum by up to {widest:.4f}{unit} and {farthest:.2f} times in size"
            )
        if fit.surface_disagreement:
            gaps = ", ".join(
                f"{high - low:.2g} in {one}"
                for one, (low, high) in fit.surface_disagreement.ranges.items()
            )
            parts.append(f"on the surface by {gaps}")
        if parts:
            yield Text(quoted(f"{name}: estimators differ {'; '.join(parts)}."))
