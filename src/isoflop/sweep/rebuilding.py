"""Trains the best models of a study again where their checkpoints are gone, and compares.

A model is trained beside the runs, in a folder that the study does not look into, so that nothing
of the study is missing meanwhile. Only when it is finished it takes its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isoflop import storage
from isoflop.config import AttentionKernel, RunRecord, Study
from isoflop.data import prepare
from isoflop.hardware import usable_cores
from isoflop.notation import duration
from isoflop.planning import PlannedRun, achieved_flops, makespan
from isoflop.planning.assignment import assign
from isoflop.runs import RunFolder, RunStore, committed_records
from isoflop.sweep.cleaning import best_runs
from isoflop.sweep.ledger import RECORDS, Folders
from isoflop.sweep.running import run_study
from isoflop.sweep.schedule.executor import Execution

REBUILT = "rebuilt"
"""Folder of models under way, in a study's folder."""


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

    @property
    def planned(self) -> PlannedRun:
        """The run, to be trained again."""
        return PlannedRun(self.variant, self.record.config, "initial")

    @property
    def left(self) -> float:
        """Share of the steps that are still to be trained."""
        if self.beside.record() is not None:
            return 0.0
        rows, _ = self.beside.read_metrics()
        return 1 - (int(rows[-1]["step"]) if rows else 0) / self.record.config.steps


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

    What `results/NAME/` holds of a run comes before the record in the study's folder `root`.

    Raises:
        ValueError: there is no such variant, or no finished run.
    """
    names = [one.name for one in study.variants]
    if variant is not None and variant not in names:
        raise ValueError(f"variant is {variant!r}; expected one of {names}")
    store, beside = RunStore(root), RunStore(root / REBUILT)
    known = [
        *beside.records(),
        *store.records(),
        *committed_records(results, study.name, RECORDS),
    ]
    records = {record.run_id: record for record in known}
    variant_of = assign(study, records.values()).variant_of
    found = [
        BestModel(variant_of[run_id], record, store.folder(run_id), beside.folder(run_id))
        for run_id, record in best_runs(records.values(), variant_of).items()
        if variant in (None, variant_of[run_id])
    ]
    if not found:
        raise ValueError(
            f"no run of {variant or study.name} is finished in {root} or {results / study.name}; "
            "train it with `isoflop run` first"
        )
    return sorted(found, key=lambda one: (names.index(one.variant), one.planned.budget_flops))


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
        return [model.planned for model in group if model.record.run_id not in done]

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
        outcome = run_study(study, beside, alike, planner=without_record)
        interrupted = outcome.interrupted
        if interrupted:
            break
    made = [
        Rebuilt(model, record) for model in gone if (record := model.beside.record()) is not None
    ]
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


def expectation(models: Sequence[BestModel], workers: int | None) -> str:
    """Return how many models are to be trained and how long that takes here, in a sentence.

    The speed is measured, which takes seconds. Models at a time are one per core if None.
    """
    from isoflop.training import measure_speed

    at_a_time = usable_cores().count if workers is None else max(1, workers)
    configs = [model.record.config for model in models]
    speed = measure_speed(configs)
    whole = [achieved_flops(config) / speed(config) for config in configs]
    here, recorded = (
        duration(
            makespan([one.left * took for one, took in zip(models, times, strict=True)], at_a_time)
        )
        for times in (whole, [model.record.seconds for model in models])
    )
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    return (
        f"training {count} again, {at_a_time} at a time: about {here} at the speed of uncompiled "
        f"steps measured here just now; when they were recorded, {recorded}"
    )


def described(one: Rebuilt) -> str:
    """Return how a model that was trained again compares with what is recorded of it."""
    recorded, after = one.model.record, one.record
    name = f"{one.model.variant}, run {recorded.run_id}"
    if after.state != "finished":
        return f"{name}: {after.state}: {after.reason}; the recorded run finished"
    test = after.evaluation("test")
    loss = "" if test is None else f", test loss {test.loss:.4f}"
    if one.equal:
        return f"{name}: every loss is the recorded one, bit for bit{loss}"
    before, now = (
        {(e.split, e.decision, e.weights): e.loss for e in record.evaluations}
        for record in (recorded, after)
    )
    both = [abs(now[key] - before[key]) for key in now if key in before]
    apart = f" by at most {max(both):.2g} nats per token" if both else ""
    was, is_ = (record.environment.model_dump() for record in (recorded, after))
    changes = ", ".join(f"{key} {was[key]} -> {is_[key]}" for key in was if was[key] != is_[key])
    changed = f"; changed since: {changes}" if changes else ""
    return f"{name}: losses differ from the recorded ones{apart}{loss}{changed}"
