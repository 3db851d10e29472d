"""Frees the disk that checkpoints of finished runs take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isoflop import storage
from isoflop.config import RunRecord, Study
from isoflop.planning.assignment import assign
from isoflop.runs import RunClaimed, RunFolder, RunStore


@dataclass(frozen=True)
class Freed:
    """What cleaning did."""

    bytes: int
    runs: int
    """Runs whose checkpoints were removed."""
    kept: int
    """Runs with a record that keep theirs, being the best of their variant and budget."""


def clean(study: Study, root: Path, *, everything: bool = False) -> Freed:
    """Remove the checkpoints of runs that have a record; nothing else is touched.

    The best run of each variant and budget, by validation loss, keeps its checkpoint. Runs without
    a record keep theirs, since they go on from them.

    Args:
        study: tells which runs are compared.
        root: the study's folder.
        everything: remove those of the best runs too.
    """
    store = RunStore(root)
    records = store.records()
    best = {} if everything else best_runs(records, assign(study, records).variant_of)
    freed = runs = kept = 0
    for record in records:
        folder = store.folder(record.run_id)
        if not folder.checkpoints.is_dir():
            continue
        if record.run_id in best:
            kept += 1
            continue
        size = _discard(folder)
        freed += size
        runs += size > 0
    return Freed(freed, runs, kept)


def _discard(folder: RunFolder) -> int:
    """Remove a run's checkpoints and return their size, 0 while another process holds the run."""
    try:
        with folder.claim():
            files = [path for path in folder.checkpoints.rglob("*") if path.is_file()]
            size = sum(path.lstat().st_size for path in files)
            storage.discard(folder.checkpoints)
            return size
    except RunClaimed:
        return 0


def best_runs(records: Iterable[RunRecord], variant_of: Mapping[str, str]) -> dict[str, RunRecord]:
    """Return the finished run of each variant and budget with the lowest validation loss.

    Judged by validation, so that what is shown of a model's test loss is not chosen by it.

    Args:
        records: outcomes of runs.
        variant_of: name of the variant of each run id; other runs are left aside.

    Returns:
        The records by run id.
    """
    by_id = {record.run_id: record for record in records}
    lowest: dict[tuple[str, float | None], tuple[float, str]] = {}
    for record in by_id.values():
        evaluation = record.evaluation("validation")
        if record.run_id in variant_of and record.state == "finished" and evaluation is not None:
            key = (variant_of[record.run_id], record.config.budget_flops)
            here = (evaluation.loss, record.run_id)
            lowest[key] = min(lowest.get(key, here), here)
    return {run_id: by_id[run_id] for _, run_id in lowest.values()}
