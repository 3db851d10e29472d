"""Frees the disk that checkpoints of finished runs take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from isoflop import storage
from isoflop.config import RunRecord, Study
from isoflop.planning import next_runs
from isoflop.planning.assignment import assign
from isoflop.runs import RunClaimed, RunStore


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

    The best run of each variant and budget, by validation loss, keeps its checkpoint unless
    `everything` goes. Runs without a record keep theirs, since they go on from them, and so do
    those that another process holds. What longer runs branch from goes too, unless one is needed.
    """
    store = RunStore(root)
    records = store.records()
    needed = {run.config.stem for run in next_runs(study, records)} if study.reuse else set()
    best = {} if everything else best_runs(records, assign(study, records).variant_of)
    freed = runs = kept = 0
    for record in records:
        folder = store.folder(record.run_id)
        kept += record.run_id in best and folder.checkpoints.is_dir()
        going = [] if record.run_id in best else [folder.checkpoints]
        going += [] if record.config.stem in needed else [folder.stable]
        going = [one for one in going if one.is_dir()]
        if not going:
            continue
        try:
            with folder.claim():
                files = [path for one in going for path in one.rglob("*") if path.is_file()]
                size = sum(path.lstat().st_size for path in files)
                for one in going:
                    storage.discard(one)
        except RunClaimed:
            continue
        freed += size
        runs += size > 0
    return Freed(freed, runs, kept)


def best_runs(records: Iterable[RunRecord], variant_of: Mapping[str, str]) -> dict[str, RunRecord]:
    """Return the finished run of each variant and budget with the lowest validation loss, by id.

    Judged by validation, so that what is shown of a model's test loss is not chosen by it. Runs
    that are of no variant are left aside.
    """
    best: dict[tuple[str, float | None], tuple[float, str, RunRecord]] = {}
    for record in records:
        evaluation = record.evaluation("validation")
        if record.run_id in variant_of and record.state == "finished" and evaluation is not None:
            key = (variant_of[record.run_id], record.config.budget_flops)
            here = (evaluation.loss, record.run_id, record)
            if key not in best or here[:2] < best[key][:2]:
                best[key] = here
    return {run_id: record for _, run_id, record in best.values()}
