"""The trained models that a study keeps: disk is freed of others, and those gone trained again.

A model is trained again beside the runs, in a folder that the study does not look into, so that
nothing of the study is missing meanwhile. Only when it is finished it takes its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isoflop import storage
from isoflop.config import AttentionKernel, RunRecord, Study
from isoflop.data import prepare
from isoflop.planning import PlannedRun, next_runs
from isoflop.planning.assignment import assign
from isoflop.runs import RunClaimed, RunFolder, RunStore
from isoflop.sweep.ledger import TRIALS, Folders, Ledger
from isoflop.sweep.running import run_study
from isoflop.sweep.schedule.executor import Execution

REBUILT = "rebuilt"
"""Folder of models under way, in a study's folder."""


@dataclass(frozen=True)
class Freed:
    """What cleaning did."""

    bytes: int
    runs: int
    """Runs whose checkpoints were removed."""
    kept: int
    """Runs with a record that keep theirs, being the best of their variant and budget."""


def clean(study: Study, root: Path, *, everything: bool = False) -> Freed:
    """Remove the checkpoints of runs and trials that have a record; nothing else is touched.

    The best run of each variant and budget, by validation loss, keeps its checkpoint unless
    `everything` goes. Runs without a record keep theirs, since they go on from them, and so do
    those that another process holds. What longer runs branch from goes too, unless one is needed.
    """
    store, trials = RunStore(root), RunStore(storage.inside(root, TRIALS))
    records = store.records()
    needed = {run.config.stem for run in next_runs(study, records)} if study.reuse else set()
    best = {} if everything else best_runs(records, assign(study, records).variant_of)
    freed = runs = kept = 0
    done = [(store.folder(one.run_id), one, one.run_id in best) for one in records]
    done += [(trials.folder(one.run_id), one, False) for one in trials.records()]
    for folder, record, stays in done:
        kept += stays and folder.checkpoints.is_dir()
        staying = {folder.checkpoints: stays, folder.stable: record.config.stem in needed}
        going = [path for path in staying if not staying[path] and path.is_dir()]
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


@dataclass(frozen=True)
class BestModel:
    """The best finished run of a variant at a budget, as it is recorded."""

    variant: str
    record: RunRecord
    folder: RunFolder
    """Where its checkpoint belongs."""
    beside: RunFolder
    """Where it is trained again."""

    @property
    def at_hand(self) -> bool:
        """Whether the trained model is there."""
        record, saved = self.folder.record(), self.folder.checkpoints
        finished = record is not None and record.state == "finished"
        return finished and saved.is_dir() and any(saved.iterdir())


@dataclass(frozen=True)
class Rebuilt:
    """A model trained again, beside what is recorded of it."""

    model: BestModel
    record: RunRecord

    @property
    def equal(self) -> bool:
        """Whether every loss is the recorded one, to the last bit."""
        return _losses(self.record) == _losses(self.model.record)


def best_models(
    study: Study, root: Path, results: Path, variant: str | None = None
) -> list[BestModel]:
    """Return the best model of each variant and budget, those that `clean` would keep.

    Raises:
        ValueError: there is no such variant, or no finished run.
    """
    names = [one.name for one in study.variants]
    if variant is not None and variant not in names:
        raise ValueError(f"variant is {variant!r}; expected one of {names}")
    ledger, beside = Ledger(study, root, results), RunStore(root / REBUILT)
    variant_of = ledger.runs.variant_of
    found = [
        BestModel(variant_of[run_id], record, ledger.store.folder(run_id), beside.folder(run_id))
        for run_id, record in best_runs(ledger.records, variant_of).items()
        if variant in (None, variant_of[run_id])
    ]
    if not found:
        raise ValueError(
            f"no run of {variant or study.name} is finished in {root} or {results / study.name}; "
            "train it with `isoflop run` first"
        )
    return sorted(
        found, key=lambda one: (names.index(one.variant), one.record.config.budget_flops or 0.0)
    )


def rebuild(
    study: Study,
    folders: Folders,
    models: Sequence[BestModel],
    execution: Execution = Execution(),  # noqa: B008 - frozen
) -> tuple[list[Rebuilt], bool]:
    """Train models whose checkpoint is gone, with the threads they had, and put them in place.

    Where the folder holds a record with the same losses, it gets its checkpoint back and all else
    in it stays. Otherwise the new run takes its place, since a record tells of the model beside it.

    Models at hand are left alone. Threads, compiling and attention are those of each model.

    Returns:
        The models that were trained to their end, those of an interrupted call before too, and
        whether this one was interrupted; then the same call goes on.

    Raises:
        ValueError: the data changed.
        RunClaimed: another process works on a run.
    """
    gone = [model for model in models if not model.at_hand]
    present = prepare(study.data, folders.cache).sha256 if gone else ""
    for model in gone:
        if model.record.data_sha256 != present:
            raise ValueError(
                f"the data of study {study.name!r} changed: run {model.record.run_id} was trained "
                f"on SHA-256 {model.record.data_sha256}, now the data has {present}; restore it"
            )
    root = folders.root / REBUILT
    # Nothing is taken up there: what is trained has a record already.
    beside = Folders(root, root / "results", folders.cache)
    interrupted = False

    def without_record(_: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
        done = {record.run_id for record in records}
        left = [model for model in group if model.record.run_id not in done]
        return [PlannedRun(model.variant, model.record.config, "initial") for model in left]

    for how in dict.fromkeys(_how(model) for model in gone):
        group = [model for model in gone if _how(model) == how]
        # Compiled as it was, where a compiler is at hand.
        threads, compiled, attention = how
        alike = replace(
            execution,
            threads=threads,
            compiled=None if compiled else False,
            attention_kernel=attention,
        )
        interrupted = run_study(study, beside, alike, planner=without_record).interrupted
        if interrupted:
            break
    trained = ((model, model.beside.record()) for model in gone)
    made = [Rebuilt(model, record) for model, record in trained if record is not None]
    for one in made:
        if one.record.state == "finished":
            _put_in_place(one)
    if gone and not RunStore(root).folders():
        storage.discard(root)
    return made, interrupted


def _how(model: BestModel) -> tuple[int, bool, AttentionKernel | None]:
    was = model.record.environment
    return was.threads, was.compiled, was.attention


def _losses(record: RunRecord) -> tuple[object, ...]:
    return record.state, record.train_loss, record.curve, record.evaluations


def _put_in_place(one: Rebuilt) -> None:
    folder, beside = one.model.folder, one.model.beside
    with beside.claim():
        if not folder.path.exists():
            storage.move_folder(beside.path, folder.path)
            return
        with folder.claim():
            present = folder.record()
            if present is not None and _losses(present) == _losses(one.record):
                storage.move_folder(beside.checkpoints, folder.checkpoints)
                storage.discard(beside.path)
            else:
                storage.discard(folder.path)
                storage.move_folder(beside.path, folder.path)


def described(one: Rebuilt) -> str:
    """Return how a model that was trained again compares with what is recorded of it."""
    recorded, after = one.model.record, one.record
    name = f"{one.model.variant}, run {recorded.run_id}"
    if after.state != "finished":
        return f"{name}: {after.state}: {after.reason}; the recorded run finished"
    if one.equal:
        return f"{name}: every loss is the recorded one, bit for bit"
    before, now = (
        {(e.split, e.decision, e.weights): e.loss for e in record.evaluations}
        for record in (recorded, after)
    )
    apart = max((abs(now[key] - before[key]) for key in now if key in before), default=0.0)
    was, is_ = (record.environment.model_dump() for record in (recorded, after))
    changes = ", ".join(f"{key} {was[key]} -> {is_[key]}" for key in was if was[key] != is_[key])
    told = f"{name}: losses differ from the recorded ones by at most {apart:.2g} nats per token"
    return f"{told}; changed since: {changes}" if changes else told
