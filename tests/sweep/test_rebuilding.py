"""The best models of a study, trained again: the same bits here, and what becomes of others."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

import sweep_studies as tinies
from isoflop import checkpoint
from isoflop.config import RunConfig, RunRecord, Study
from isoflop.data import prepare
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, RunStore, write_records
from isoflop.sweep import (
    Execution,
    Folders,
    Outcome,
    best_models,
    clean,
    export,
    rebuild,
    run_study,
)
from isoflop.sweep.models import REBUILT, described
from sweep_studies import BASELINE, ROUTED, record_of, starts, tiny


@pytest.mark.slow
def test_a_model_whose_checkpoint_is_gone_is_trained_again_to_the_same_bits(
    corpus: Path, tmp_path: Path
) -> None:
    study, root, results = tiny(corpus, ROUTED), tmp_path / "runs", tmp_path / "results"
    cache = tmp_path / "cache"
    tinies.train_study(study, root, cache, workers=2)
    export(study, root, results)
    (model,) = best_models(study, root, results)
    assert model.at_hand
    folders = Folders(root, results, cache)
    assert rebuild(study, folders, [model]) == ([], False)
    saved = checkpoint.latest(model.folder.checkpoints)
    record = model.folder.record()
    metrics = (model.folder.path / "metrics.jsonl").read_bytes()
    clean(study, root, everything=True)
    assert not model.at_hand

    made, interrupted = rebuild(study, folders, best_models(study, root, results), Execution(1))
    assert not interrupted
    assert [one.equal for one in made] == [True]
    assert "every loss is the recorded one, bit for bit" in described(made[0])
    again = checkpoint.latest(model.folder.checkpoints)
    assert again.step == saved.step
    assert again.tensors.keys() == saved.tensors.keys()
    assert all(again.tensors[name].equal(tensor) for name, tensor in saved.tensors.items())
    # Its record and all else stay, and nothing is left beside.
    assert model.folder.record() == record
    assert (model.folder.path / "metrics.jsonl").read_bytes() == metrics
    assert not (root / REBUILT).exists()


# --- with trainers that take no time


class Rebuilding(tinies.Place):
    """Records of a study whose models can be had again at once."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        super().__init__(folder)
        self.study: Study = tiny(corpus, BASELINE, ROUTED)
        self.folders = Folders(self.root, self.results, self.cache)
        sha256 = prepare(self.study.data, self.cache).sha256
        runs = next_runs(self.study, [])
        self.records = [record_of(run.config, data_sha256=sha256) for run in runs]
        self.commit()

    def commit(self, *changed: RunRecord) -> None:
        """Commit the records, some of them changed."""
        records = {one.run_id: one for one in (*self.records, *changed)}
        write_records(self.results / "tiny" / "records.jsonl", records.values())

    def best(self, variant: str | None = None):
        return best_models(self.study, self.root, self.results, variant)

    def rebuild(self, *models):
        return rebuild(self.study, self.folders, models or self.best(), Execution(2))


@pytest.fixture
def place(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rebuilding:
    monkeypatch.setattr("isoflop.sweep.models.run_study", partial(run_study, train=tinies.instant))
    return Rebuilding(corpus, tmp_path)


def with_losses(record: RunRecord, **losses: float) -> RunRecord:
    """Return a record with other losses on the splits that are named."""
    evaluations = tuple(
        one.model_copy(update={"loss": losses.get(one.split, one.loss)})
        for one in record.evaluations
    )
    return record.model_copy(update={"evaluations": evaluations})


def test_the_best_is_told_by_validation(place: Rebuilding) -> None:
    first, second, _ = (one for one in place.records if not one.config.model.routed_blocks)
    place.commit(
        with_losses(first, validation=0.5, test=9.0), with_losses(second, validation=0.6, test=0.1)
    )
    models = place.best()
    assert [model.variant for model in models] == ["Baseline", "MoD"]
    assert models[0].record.run_id == first.run_id
    assert [model.record for model in place.best("MoD")] == [models[1].record]


def test_what_cannot_be_rebuilt_is_told(place: Rebuilding) -> None:
    with pytest.raises(
        ValueError, match=r"variant is 'Mod'; expected one of \['Baseline', 'MoD'\]"
    ):
        place.best("Mod")
    with pytest.raises(ValueError, match=r"no run of tiny is finished in .* train it with"):
        best_models(place.study, place.root, place.root)
    place.commit(*(one.model_copy(update={"data_sha256": "0" * 64}) for one in place.records))
    with pytest.raises(ValueError, match="the data of study 'tiny' changed: run"):
        place.rebuild()
    assert starts(place.cache) == []


def test_another_outcome_takes_the_place_with_its_own_record(place: Rebuilding) -> None:
    (model,) = place.best("MoD")
    recorded = with_losses(model.record, test=model.record.evaluations[0].loss + 0.25)
    place.commit(recorded)
    with model.folder.claim():
        model.folder.create(recorded.config)
        model.folder.write_record(recorded)
    (model.folder.path / "evaluation.json").write_text("of the model that is gone")
    made, _ = place.rebuild()
    told = {one.model.variant: one for one in made}
    assert told["Baseline"].equal
    assert not told["MoD"].equal
    assert "losses differ from the recorded ones by at most 0.25 nats" in described(told["MoD"])
    assert model.folder.record() == told["MoD"].record != recorded
    assert not (model.folder.path / "evaluation.json").exists()
    # The trainer here leaves no checkpoint; with one there is nothing to do any more.
    for one in made:
        (one.model.folder.checkpoints / "step-00000001").mkdir(parents=True)
    assert all(one.at_hand for one in place.best())
    assert place.rebuild() == ([], False)


def test_an_interrupted_call_puts_in_place_what_is_finished_and_goes_on(
    place: Rebuilding, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = place.best()

    def interrupted(study: Study, folders: Folders, _: Execution, *, planner) -> Outcome:
        done = planner(study, [])[0].config
        folder = RunStore(folders.root).folder(done.run_id)
        tinies.instant(done, folder, cache=folders.cache)
        return Outcome(finished=1, diverged=0, failed=0, left=1, interrupted=True)

    with monkeypatch.context() as patched:
        patched.setattr("isoflop.sweep.models.run_study", interrupted)
        made, stopped = place.rebuild()
    assert stopped
    assert [one.model.record.run_id for one in made] == [models[0].record.run_id]
    assert models[0].folder.record() is not None
    assert models[1].folder.record() is None
    (models[0].folder.checkpoints / "step-00000001").mkdir(parents=True)

    made, stopped = place.rebuild()
    assert not stopped
    assert [one.model.record.run_id for one in made] == [models[1].record.run_id]
    assert starts(place.cache) == [model.record.run_id for model in models]


def test_a_model_that_was_finished_and_not_put_in_place_is(place: Rebuilding) -> None:
    (model,) = place.best("MoD")
    tinies.instant(model.record.config, model.beside, cache=place.cache)
    made, _ = place.rebuild(model)
    assert [one.equal for one in made] == [True]
    assert starts(place.cache) == [model.record.run_id]
    assert model.folder.record() is not None
    assert not (place.root / REBUILT).exists()


def test_a_model_that_diverges_now_stays_beside(
    place: Rebuilding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoflop.sweep.models.run_study", partial(run_study, train=diverges))
    (model,) = place.best("MoD")
    (one,), _ = place.rebuild(model)
    assert (one.record.state, one.equal) == ("diverged", False)
    assert not model.folder.path.exists()
    assert model.beside.record() == one.record


def diverges(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    record = record_of(config, state="diverged", reason="loss nan at step 3")
    with folder.claim():
        folder.create(config)
        folder.write_record(record)
    return record
