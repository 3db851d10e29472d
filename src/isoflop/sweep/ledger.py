"""What is on disk of a study: its own records, those committed elsewhere, and the study itself."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from isoflop import storage
from isoflop.config import RunRecord, Study
from isoflop.config.load import load_study
from isoflop.planning.assignment import Assignment, assign
from isoflop.runs import RunStore, committed_records, record_files, replace_records
from isoflop.text import quoted

RECORDS, TRIALS = "records", "search"
"""Stems of the files of committed records, and of those of recipe trials."""
STUDY = "study.json"
RUNS, RESULTS, CACHE = Path("runs"), Path("results"), Path("cache")
"""Where studies, committed results and prepared corpora lie unless somebody says otherwise."""


@dataclass(frozen=True)
class Folders:
    """Where a study lives."""

    root: Path
    """Its own folder, with its runs."""
    results: Path = RESULTS
    """Committed records, a folder per study; those of every study are taken up."""
    cache: Path = CACHE
    """Prepared corpora and compiled code."""
    settled_in: Path | None = None
    """Folder that keeps what was measured of precisions; None for its own."""

    @classmethod
    def of(
        cls,
        study: Study,
        out: Path | None = None,
        results: Path = RESULTS,
        cache: Path = CACHE,
    ) -> Folders:
        """Return the usual folders of a study, its own being `runs/NAME` unless named."""
        return cls(out or RUNS / study.name, results, cache)


def study_in(folder: Path, results: Path = RESULTS) -> tuple[Study, Folders]:
    """Return the study of `runs/NAME` or `results/NAME`, and where it lives.

    Committed `results` are taken up, for a folder that has such records those beside it.

    Raises:
        ValueError: the folder holds no study.
    """
    file, beside = folder / STUDY, folder.resolve()
    if not file.is_file():
        raise ValueError(f"{folder} has no {STUDY}; expected runs/NAME or results/NAME of a study")
    committed = record_files(beside.parent, beside.name, RECORDS)
    return load_study(file), Folders(folder, beside.parent if committed else results)


class Ledger:
    """The final records at hand: the study folder's own, then committed ones of other runs.

    Args:
        study: whose records.
        root: the study's folder.
        results: folder of committed results, records lie in `results/NAME/records.jsonl.gz`,
            those of recipe trials in `search.jsonl.gz` beside; either may be uncompressed.
            Those of every study are taken up, since studies may share runs; None for none.
        beside: whether the folder has other runs than the study's, its trials or models that are
            rebuilt: all of its data are its own, and only its committed trials are taken up.

    Raises:
        ValueError: a record of the study's own folders cannot be read, or its file is a symbolic
            link; it names the file. Other folders of results are then left out with a warning.
    """

    def __init__(
        self, study: Study, root: Path, results: Path | None, *, beside: bool = False
    ) -> None:
        self.study = study
        self._beside = beside
        self.store = RunStore(root)
        self._local: dict[str, RunRecord] = {}
        self._committed: dict[str, RunRecord] = {}
        if results is not None and results.is_dir():
            names = [study.name] if beside else sorted(path.name for path in results.iterdir())
            for stem, name in product((TRIALS,) if beside else (TRIALS, RECORDS), names):
                try:
                    found = committed_records(results, name, stem)
                except ValueError as error:
                    if name == study.name:
                        raise
                    warnings.warn(f"{results / name} is left out: {error}", stacklevel=2)
                    continue
                self._committed |= {record.run_id: record for record in found}
        self.refresh()

    def refresh(self) -> bool:
        """Read the records that were written since; return whether there were any."""
        before = len(self._local)
        for folder in self.store.folders():
            record = None if folder.path.name in self._local else folder.record()
            if record is not None:
                if record.run_id != folder.path.name:
                    raise ValueError(
                        f"{folder.path} holds the record of run {record.run_id}; remove the folder"
                    )
                self._local[record.run_id] = record
        return len(self._local) > before

    def get(self, run_id: str) -> RunRecord | None:
        """Return the record of a run, None while there is none."""
        return self._local.get(run_id) or self._committed.get(run_id)

    def is_taken_up(self, run_id: str) -> bool:
        """Return whether the record of a run comes from committed results."""
        return run_id not in self._local and run_id in self._committed

    @property
    def records(self) -> list[RunRecord]:
        """All records, by run id."""
        return [record for _, record in sorted({**self._committed, **self._local}.items())]

    @property
    def runs(self) -> Assignment:
        """Which of the records are of the study's runs, and of which variant."""
        return assign(self.study, self.records)

    @property
    def own(self) -> list[RunRecord]:
        """The records of the study's runs, those that check others too."""
        if self._beside:
            return [one for one in self.records if one.config.data == self.study.data]
        known = self.runs.all
        return [record for record in self.records if record.run_id in known]


def export(study: Study, root: Path, results: Path, to: Path | None = None) -> Path:
    """Write the study and the final records of its runs, taken up ones too, to `TO/NAME/`.

    `to` is `results` unless named. Records of other runs that are there stay, which a warning
    tells.

    Returns:
        The file of records.

    Raises:
        ValueError: there are no records, or one cannot be read.
        StorageError: the results cannot be written.
    """
    records = Ledger(study, root, results).own
    if not records:
        raise ValueError(f"{root} has no records to export; train the study first")
    to = to or results
    found = [*committed_records(to, study.name, RECORDS), *records]
    merged = list({record.run_id: record for record in found}.values())
    path = replace_records(to, study.name, RECORDS, merged)
    if others := len(assign(study, merged).foreign):
        warnings.warn(f"{path} keeps {others} records of no run of the study", stacklevel=2)
    storage.write_json(storage.inside(to, study.name, STUDY), study.model_dump(mode="json"))
    return path


def save_study(study: Study, root: Path) -> list[str]:
    """Write `root/study.json` and return what changed since it was written last, in words."""
    path = storage.inside(root, STUDY)
    now = study.model_dump(mode="json")
    before = storage.read_json(path) if path.exists() else now
    changes = _changes("", before, now)
    if changes or not path.exists():
        storage.write_json(path, now)
    return changes


def _changes(place: str, before: Any, now: Any) -> list[str]:
    """Return one phrase for each difference; lists of named things are compared by name."""
    before, now = _by_name(before), _by_name(now)
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before == now:
            return []
        return [quoted(f"{place or 'study'}: {_shown(before)} -> {_shown(now)}")]
    changes = []
    for key in [*now, *(key for key in before if key not in now)]:
        if before.get(key) is None and now.get(key) is None:
            continue  # a setting that was added since, left out
        inner = f"{place}.{key}" if place else str(key)
        if key in before and key in now:
            changes += _changes(inner, before[key], now[key])
        else:
            changes.append(quoted(f"{inner} {'added' if key in now else 'removed'}"))
    return changes


def _by_name(value: Any) -> Any:
    named = isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value)
    return {str(item["name"]): item for item in value} if value and named else value


def _shown(value: Any) -> str:
    text = storage.to_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
