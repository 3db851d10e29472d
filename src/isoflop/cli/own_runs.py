"""Which records of a study are at hand, and which variant each belongs to."""

from __future__ import annotations

from pathlib import Path

from isoflop.config import RunRecord, Study
from isoflop.planning.assignment import Assignment, assign
from isoflop.sweep import Ledger, settled


def own_runs(
    study: Study, root: Path, results: Path, file: Path
) -> tuple[list[RunRecord], Assignment]:
    """Return the records of a study's runs, those that check others too, and whose they are.

    Args:
        study: what was studied; its precision is as `settled` finds it.
        root: its folder.
        results: where committed records lie.
        file: where the study is written, for the command that trains it.

    Raises:
        ValueError: no run that fits use has a record.
    """
    study = settled(study, root, results).study
    records = Ledger(study, root, results).records
    runs = assign(study, records)
    if not runs.variant_of:
        raise ValueError(
            f"no run of {study.name} has a record in {root} or {results / study.name}; "
            f"train it first: isoflop run {file}"
        )
    return [record for record in records if record.run_id in runs.all], runs
