"""`isoflop search`: the trials of a recipe, trained, shown and committed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from isoflop import storage
from isoflop.cli.tables import Column, table
from isoflop.config import RunRecord, Study
from isoflop.planning import PlannedRun, Trial, next_trials, trials
from isoflop.report import RecipeSearch
from isoflop.runs import RunStore, read_records, record_files, replace_records
from isoflop.sweep import Outcome, kept_precision, run_study
from isoflop.sweep.measuring import measure_apart
from isoflop.sweep.precision import first_runs, settle
from isoflop.text import quoted

SEARCH = "search"
"""Folder of the trials in a study's folder; with `.jsonl`, their committed records."""


def start_search(study: Study, root: Path, results: Path) -> Study:
    """Return the study in the precision of its trials, which its runs will have as well."""
    kept = kept_precision(study, root, results)
    if kept is None:
        here = measure_apart(first_runs(study), device="cpu", threads=1, environment={})
        kept = settle(study, root, here)
        print(quoted(kept.words), file=sys.stderr)
    return kept.study


def search_study(
    study: Study,
    root: Path,
    results: Path,
    cache: Path,
    workers: int | None,
    *,
    memory_bytes: int | None,
    stall_seconds: float,
) -> Outcome:
    """Train the trials of a study that have no record yet, neither here nor committed."""
    committed = _committed_records(study, results)

    def planner(asked: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
        return next_trials(asked, [*records, *committed])

    return run_study(
        study,
        storage.inside(root, SEARCH),
        cache,
        workers=workers,
        memory_bytes=memory_bytes,
        stall_seconds=stall_seconds,
        planner=planner,
    )


def found_trials(study: Study, root: Path, results: Path) -> list[Trial]:
    """Return the trials with the losses known so far, from here and from committed records."""
    records = {record.run_id: record for record in RunStore(storage.inside(root, SEARCH)).records()}
    records |= {record.run_id: record for record in _committed_records(study, results)}
    return trials(study, list(records.values()))


def search_of(study: Study, root: Path, results: Path) -> RecipeSearch | None:
    """Return how many trials the recipe was chosen from; None where the study declares none."""
    if study.search is None:
        return None
    made = found_trials(study, root, results)
    named = {config.run_id for trial in made for config in trial.configs}
    recorded = {
        record.run_id
        for record in [
            *RunStore(storage.inside(root, SEARCH)).records(),
            *_committed_records(study, results),
        ]
    }
    return RecipeSearch(
        declared=Counter(trial.variant for trial in made),
        finished=Counter(trial.variant for trial in made if trial.loss is not None),
        further_runs=len(recorded - named),
    )


def export_search(study: Study, root: Path, results: Path) -> Path | None:
    """Add the records of the trials trained here to the committed ones; None if there are none."""
    trained = RunStore(storage.inside(root, SEARCH)).records()
    if not trained:
        return None
    records = {record.run_id: record for record in [*_committed_records(study, results), *trained]}
    return replace_records(results, study.name, SEARCH, records.values())


def search_table(made: Sequence[Trial]) -> Table:
    """Return the trials as a table, the best of each variant marked."""
    best: dict[str, float] = {}
    for trial in made:
        if trial.loss is not None:
            best[trial.variant] = min(trial.loss, best.get(trial.variant, trial.loss))
    columns = [
        Column("variant", wraps=True, number=False),
        Column("width / blocks"),
        Column("learning rate"),
        Column("blocks x width"),
        Column("loss"),
        Column("", number=False),
    ]
    rows = [
        (
            trial.variant,
            f"{trial.width_per_block:g}",
            f"{trial.learning_rate:g}",
            f"{trial.configs[0].model.blocks} x {trial.configs[0].model.width}",
            "" if trial.loss is None else f"{trial.loss:.4f}",
            "best" if trial.loss is not None and trial.loss == best[trial.variant] else "",
        )
        for trial in made
    ]
    return table("Trials of the recipe, by loss on the validation split", columns, rows)


def _committed_records(study: Study, results: Path) -> list[RunRecord]:
    files = record_files(results, study.name, SEARCH)
    return [record for path in files for record in read_records(path)]
