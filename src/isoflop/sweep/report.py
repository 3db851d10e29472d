"""From what is on disk of a study to its page, and to the files that are committed of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from isoflop import storage
from isoflop.config import RunRecord, Study, TaskScores
from isoflop.data import prepared, train_tokens
from isoflop.notation import count
from isoflop.planning.search import first_checks
from isoflop.report import BenchRow, Evidence, LeftOut, RoutedModel, routed_model, write_report
from isoflop.report.registration import read_registrations
from isoflop.runs import RunFolder, parse_value
from isoflop.sweep.ledger import Folders, Ledger, export
from isoflop.sweep.precision import PRECISION, read_choice, settled
from isoflop.sweep.search import export_search, search_of
from isoflop.sweep.status import status, trained
from isoflop.text import typed

SPEEDS = "bench.json"
"""Where `isoflop bench train` leaves what it measured, in a study's folder."""
PAGE = "report"
FIGURES = "figures"
EXPORTED = (".svg", ".csv")
"""Forms of a figure that are exported: the picture, and the numbers."""
EVALUATION, SAMPLE = "evaluation.json", "sample.json"
"""Files of a routed model in its run's folder, and in `results/NAME/`."""
TASKS = "tasks.json"
"""Scores of all runs in tasks, in `results/NAME/`."""
PREDICTIONS = "predictions"
"""Folder of registered predictions in `results/NAME/`."""


def report_study(study: Study, folders: Folders | None = None, file: Path | None = None) -> Path:
    """Write the report of a study into its folder and return the path of the page.

    Args:
        study: what was studied.
        folders: where it lives; nothing is prepared in the cache for a report.
        file: where the study is written, for the commands that are named.

    Raises:
        ValueError: no run of the study has a record.
    """
    folders = folders or Folders.of(study)
    study, evidence = evidence_of(study, folders, file or Path(f"{study.name}.toml"))
    page = storage.inside(folders.root, PAGE, FIGURES).parent
    return write_report(study, evidence, page)


def evidence_of(
    study: Study, folders: Folders, file: Path, *, begun: bool = True
) -> tuple[Study, Evidence]:
    """Return a study in its precision, and what a report is made from. See `report_study`.

    Without `begun` there may be no record yet.
    """
    root, results = folders.root, folders.results
    chosen = settled(study, root, results)
    study = chosen.study
    ledger = trained(study, root, results, file) if begun else Ledger(study, root, results)
    runs = ledger.runs
    own = [record for record in ledger.own if record.run_id not in runs.first]
    missing = [
        LeftOut(
            variant=row.variant,
            budget_flops=row.budget_flops,
            size=count(row.parameters),
            seed=row.seed,
            state=row.state,
            reason=f"at step {row.step:,} of {row.steps:,}" if row.step else "not started",
        )
        for row in status(study, root, results, ledger=ledger).rows
        if row.run_id not in runs.all
    ]
    evidence = Evidence(
        records=own,
        variant_of=runs.variant_of,
        off_ladder=runs.off_ladder,
        checks=runs.checks,
        checked_first={one.variant: one.words for one in first_checks(study, ledger.own)},
        missing=missing,
        speeds=_speeds(storage.inside(root, SPEEDS), storage.inside(results, study.name, SPEEDS)),
        registered=read_registrations(storage.inside(results, study.name, PREDICTIONS)),
        search=None if study.scaling else search_of(study, root, results),
        routed=_routed(ledger, results),
        train_tokens=_train_tokens(study, own, folders.cache),
        precision=chosen.choice,
        tasks={i: one for i, one in _scores(ledger, results).items() if i in runs.variant_of},
        command=typed("report", file),
    )
    return study, evidence


def export_study(study: Study, root: Path, results: Path, to: Path | None = None) -> Iterator[Path]:
    """Write what is to be committed of a study to `TO/NAME/`, and yield each file written.

    These are its records, what settled its precision, its trials, its speeds, what is known of
    the routed model that a report looks into, and last the report's pictures with their tables.
    What `results/NAME/` has counts as the study's own folder does, but for pictures, which are
    those of the last report there; `to` is `results` unless named.

    Raises:
        ValueError: there are no records, or one cannot be read.
        StorageError: the results cannot be written.
    """
    yield export(study, root, results, to)
    to, committed = to or results, storage.inside(results, study.name)
    choice = read_choice(root) or read_choice(committed)
    known = choice is not None and choice.precision == study.recipe.precision
    for name in (PRECISION, SPEEDS) if known else (SPEEDS,):
        sources = [storage.inside(folder, name) for folder in (root, committed)]
        source = next(filter(Path.exists, sources), None)
        target = storage.inside(to, study.name, name)
        if source is not None and source != target:
            storage.write_json(target, storage.read_json(source))
            yield target
    if (searched := export_search(study, root, results, to)) is not None:
        yield searched
    yield from export_routed(study, root, results, to)
    if scores := _scores(Ledger(study, root, results), to, results):
        told = [one.model_dump(mode="json") for _, one in sorted(scores.items())]
        storage.write_json(to / study.name / TASKS, told)
        yield to / study.name / TASKS
    figures = storage.inside(to, study.name, FIGURES)
    for source in sorted(storage.inside(root, PAGE, FIGURES).glob("*")):
        if source.suffix in EXPORTED and not source.is_symlink():
            storage.write_bytes(figures / source.name, source.read_bytes())
            yield figures / source.name


def export_routed(
    study: Study, root: Path, results: Path, to: Path | None = None
) -> Iterator[Path]:
    """Copy what is known of the routed model that a report looks into to `TO/NAME/`."""
    model, to = _routed(Ledger(study, root, results), results), to or results
    known = (None, None) if model is None else (model.evaluation, model.sample)
    for name, value in zip((EVALUATION, SAMPLE), known, strict=True):
        if value is not None:
            storage.write_json(to / study.name / name, value.model_dump(mode="json"))
            yield to / study.name / name


def _scores(ledger: Ledger, *folders: Path) -> dict[str, TaskScores]:
    """Return scores in tasks by run id, from folders of results and before these the runs' own."""
    found: dict[str, TaskScores] = {}
    known: list[TaskScores | None] = []
    for folder in folders:
        path = storage.inside(folder, ledger.study.name, TASKS)
        told = storage.read_json(path) if path.exists() else []
        if not isinstance(told, list):
            raise ValueError(f"{path} holds no scores; expected what `isoflop export` wrote there")
        known += [parse_value(TaskScores, one, str(path)) for one in told]
    known += [ledger.store.folder(run_id).tasks() for run_id in ledger.runs.variant_of]
    for one in filter(None, known):
        found[one.run_id] = found[one.run_id].joined(one) if one.run_id in found else one
    return found


def _routed(ledger: Ledger, results: Path) -> RoutedModel | None:
    """Return the routed model to look into, from the runs' folders and committed results."""
    variant_of = ledger.runs.variant_of
    own = [ledger.store.folder(run_id) for run_id in variant_of]
    # A committed file is of one run, and lies in a folder as in that of a run.
    folders = [RunFolder(storage.inside(results, ledger.study.name)), *own]
    evaluations = [found for one in folders if (found := one.evaluation()) is not None]
    samples = [kept for one in folders if (kept := one.sample()) is not None]
    return routed_model(
        ledger.study,
        ledger.own,
        variant_of,
        {one.run_id: one for one in evaluations},
        {one.run_id: one for one in samples},
        [one.path.name for one in own if one.checkpoints.is_dir()],
    )


def _train_tokens(study: Study, records: Sequence[RunRecord], cache: Path) -> int | None:
    """Return what an epoch holds of the very corpus that the runs were trained on, in tokens."""
    store = prepared(study.data, cache)
    if store is None or {record.data_sha256 for record in records} != {store.sha256}:
        return None
    return train_tokens(store, study.data)


def _speeds(*candidates: Path) -> list[BenchRow]:
    """Return what the first of these files says was measured, nothing where there is none."""
    for path in candidates:
        if path.exists():
            found = storage.read_json(path)
            rows = found.get("rows") if isinstance(found, dict) else None
            if not isinstance(rows, list):
                raise ValueError(
                    f"{path} holds no speeds; expected what `isoflop bench train` wrote there: "
                    "run it again, or remove the file"
                )
            return [parse_value(BenchRow, row, str(path)) for row in rows]
    return []
