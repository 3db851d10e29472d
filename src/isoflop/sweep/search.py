"""The trials of a recipe: trained equally for every variant, and committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from isoflop import storage
from isoflop.config import RunRecord, Study
from isoflop.fit.search import SearchResult
from isoflop.planning import PlannedRun, Trial, next_trials, trials
from isoflop.planning.search.contenders import search
from isoflop.report import RecipeSearch
from isoflop.runs import RunStore, committed_records, replace_records
from isoflop.sweep.ledger import TRIALS, Folders, Ledger
from isoflop.sweep.precision import settled
from isoflop.sweep.running import run_study
from isoflop.sweep.schedule.executor import Execution
from isoflop.sweep.schedule.scheduler import Outcome


def search_study(
    study: Study,
    folders: Folders | None = None,
    execution: Execution = Execution(),  # noqa: B008 - frozen
) -> tuple[Outcome, list[Trial] | SearchResult]:
    """Train the trials of a study that have no record yet, neither here nor committed.

    They have the precision that the study's runs will have as well.

    Returns:
        How that ended, and the trials with the losses known then; where settings are searched,
        what was found.

    Raises:
        ValueError: the study declares no search, or as `run_study`.
    """
    if study.search is None:
        raise ValueError(f"study {study.name!r} has no [search]; expected what its trials vary")
    folders = folders or Folders.of(study)

    def planner(asked: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
        return _looked_at(asked, records)[0]

    root, results = folders.root, folders.results
    beside = replace(folders, root=storage.inside(root, TRIALS), settled_in=root)
    outcome = run_study(study, beside, execution, planner=planner)
    study = settled(study, root, results).study
    return outcome, _looked_at(study, _records(study, root, results))[1]


def _looked_at(
    study: Study, records: Sequence[RunRecord]
) -> tuple[list[PlannedRun], list[Trial] | SearchResult]:
    """Return the trials that have no record yet, and what the others tell."""
    if study.search is not None and study.search.settings is not None:
        return search(study, records)
    return next_trials(study, records), trials(study, records)


def search_of(study: Study, root: Path, results: Path) -> RecipeSearch | None:
    """Return how many trials the recipe was chosen from; None where the study declares none."""
    if study.search is None:
        return None
    records = _records(study, root, results)
    runs, made = _looked_at(study, records)
    if isinstance(made, SearchResult):
        further = len(records) + len(runs) - sum(made.trials.values())
        return RecipeSearch(made.trials, made.finished, further, made)
    named = {config.run_id for trial in made for config in trial.configs}
    return RecipeSearch(
        declared=Counter(trial.variant for trial in made),
        finished=Counter(trial.variant for trial in made if trial.loss is not None),
        further_runs=len({record.run_id for record in records} - named),
    )


def export_search(study: Study, root: Path, results: Path, to: Path) -> Path | None:
    """Add the records of trials to those committed in `to`; None if there are none to add."""
    if to == results and not RunStore(storage.inside(root, TRIALS)).records():
        return None
    records = _records(study, root, results)
    found = [*committed_records(to, study.name, TRIALS), *records]
    merged = {record.run_id: record for record in found}.values()
    return replace_records(to, study.name, TRIALS, merged) if records else None


def _records(study: Study, root: Path, results: Path) -> list[RunRecord]:
    """Return the records of trials, committed and, which come before, from here."""
    return Ledger(study, storage.inside(root, TRIALS), results, beside=True).records
