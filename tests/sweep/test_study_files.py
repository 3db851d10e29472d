"""What is on disk of a study: its records, itself, its checkpoints."""

from pathlib import Path

import pytest

from isoflop.config import RunRecord, Study, Variant
from isoflop.planning import next_runs
from isoflop.runs import RunStore, read_records, write_records
from isoflop.sweep import Freed, Ledger, clean, export, status
from isoflop.sweep.ledger import save_study
from isoflop.sweep.schedule.attempts import commit_failure
from sweep_studies import BASELINE, ROUTED, record_of, tiny


def commit(store: RunStore, record: RunRecord, checkpoint_bytes: int = 0) -> None:
    folder = store.folder(record.run_id)
    folder.create(record.config)
    with folder.claim():
        folder.write_record(record)
        if checkpoint_bytes:
            saved = folder.checkpoints / "step-00000001"
            saved.mkdir(parents=True)
            (saved / "state.safetensors").write_bytes(b"x" * checkpoint_bytes)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return tiny(tmp_path / "text.txt", BASELINE, ROUTED)


@pytest.fixture
def records(study: Study) -> list[RunRecord]:
    return [record_of(run.config) for run in next_runs(study, [])]


# --- the ledger


def test_own_records_come_before_committed_ones_and_these_before_trials(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    root, results = tmp_path / "ours", tmp_path / "results"
    first, second, third = records[:3]
    trial, ours = (record_of(first.config, loss=loss) for loss in (0.5, 0.7))
    write_records(results / "other" / "search.jsonl", [trial, second])
    assert Ledger(study, root, results).get(first.run_id) == trial
    write_records(results / "other" / "records.jsonl", [first])
    assert Ledger(study, root, results).get(first.run_id) == first
    commit(RunStore(root), ours)
    ledger = Ledger(study, root, results)
    assert ledger.get(first.run_id) == ours
    assert [ledger.is_taken_up(one.run_id) for one in (first, second)] == [False, True]
    assert ledger.records == sorted([ours, second], key=lambda record: record.run_id)
    assert not ledger.refresh()
    commit(RunStore(root), third)
    assert ledger.refresh()
    assert ledger.get(third.run_id) == third


def test_what_others_left_beside_is_named_and_stops_nothing_but_its_own_study(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    root, results = tmp_path / "ours", tmp_path / "results"
    write_records(results / "other" / "records.jsonl", records[:2])
    (results / "latest").symlink_to("other")
    (results / "mine").mkdir()
    (results / "mine" / "records.jsonl").write_text('{"loss": 3}\n')
    with pytest.warns(UserWarning, match="is left out: ") as told:
        ledger = Ledger(study, root, results)
    assert len(ledger.records) == 2
    assert all(
        any(f"/{name} is" in str(one.message) for one in told) for name in ("latest", "mine")
    )
    (results / "mine").rename(results / study.name)
    with pytest.warns(UserWarning, match="latest"), pytest.raises(ValueError, match="not a valid"):
        Ledger(study, root, results)
    commit(RunStore(root), records[0])
    (path,) = (root / "runs").iterdir()
    path.rename(path.with_name(f"{path.name} copy"))
    with pytest.raises(ValueError, match=r"runs/\w+ copy is called as no run is; move it out of"):
        Ledger(study, root, None)


def test_export_writes_all_records_and_the_study(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="no records to export"):
        export(study, tmp_path / "root", tmp_path / "results")
    assert not (tmp_path / "results").exists()
    commit(RunStore(tmp_path / "root"), records[0])
    written = export(study, tmp_path / "root", tmp_path / "results")
    assert written == tmp_path / "results" / "tiny" / "records.jsonl.gz"
    assert read_records(written) == [records[0]]
    # What was committed before and is not at hand here stays.
    commit(RunStore(tmp_path / "other"), records[1])
    export(study, tmp_path / "other", tmp_path / "results")
    assert {one.run_id for one in read_records(written)} == {one.run_id for one in records[:2]}
    assert Study.model_validate_json(written.with_name("study.json").read_text()) == study
    # So does what the study no longer names, which is told.
    commit(RunStore(tmp_path / "root"), records[-1])
    export(study, tmp_path / "root", tmp_path / "results")
    fewer = study.model_copy(update={"variants": (BASELINE,)})
    with pytest.warns(UserWarning, match=r"records\.jsonl\.gz keeps 1 records of no run"):
        export(fewer, tmp_path / "root", tmp_path / "results")
    assert len(read_records(written)) == 3


def test_what_changed_in_a_study_is_told_by_name(study: Study, tmp_path: Path) -> None:
    assert save_study(study, tmp_path) == []
    assert save_study(study, tmp_path) == []
    variants = (
        Variant(name="\x1b[1mNew"),
        study.variants[1].model_copy(update={"learning_rate": 1e-3}),
    )
    edited = study.model_copy(update={"variants": variants, "seeds": (0, 1)})
    assert save_study(edited, tmp_path) == [
        "seeds: [0] -> [0,1]",
        "variants.\\x1b[1mNew added",
        "variants.MoD.learning_rate: null -> 0.001",
        "variants.Baseline removed",
    ]
    assert save_study(edited, tmp_path) == []


# --- a run that failed


def test_a_failure_tells_how_far_the_run_came(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    config = records[0].config
    folder = RunStore(tmp_path).folder(config.run_id)
    folder.create(config)
    with folder.claim():
        folder.pin(records[0].environment, "e" * 64)
        folder.begin_attempt(0)
        folder.begin_attempt(2)
        with folder.open_metrics(0) as metrics:
            for step in (1, 2, 3):
                metrics.append({"step": step, "loss": 2.0, "seconds": 0.5})
    for reason in ("boom", "again, which changes nothing"):
        commit_failure(config, folder, reason, data_sha256="d" * 64, device="cpu")
    record = folder.record()
    assert record is not None
    assert record.seconds == 1.5
    assert record.attempts == 2
    assert record.data_sha256 == "e" * 64
    assert record.environment == records[0].environment
    row = next(row for row in status(study, tmp_path).rows if row.run_id == config.run_id)
    assert (row.state, row.step, row.reason) == ("failed", 3, "boom")


# --- status


def test_status_is_derived_from_what_is_on_disk(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    store = RunStore(tmp_path)
    done, begun, running, bad = records[:4]
    commit(store, done)
    commit(store, record_of(bad.config, state="diverged", reason="loss nan"))
    for record in (begun, running):
        folder = store.folder(record.run_id)
        folder.create(record.config)
        with folder.claim(), folder.open_metrics(0) as metrics:
            metrics.append({"step": 1, "loss": 5.0})
            metrics.append({"step": 2, "loss": 4.5})
    with store.folder(running.run_id).claim():
        found = status(study, tmp_path)
    rows = {row.run_id: row for row in found.rows}
    assert len(rows) == 6
    assert found.counts == {
        "finished": 1,
        "diverged": 1,
        "running": 1,
        "interrupted": 1,
        "pending": 2,
    }
    told = rows[begun.run_id]
    assert (told.state, told.step, told.train_loss) == ("interrupted", 2, 4.5)
    assert rows[running.run_id].state == "running"
    assert rows[done.run_id].step == rows[done.run_id].steps == done.config.steps
    assert rows[done.run_id].validation_loss == pytest.approx(done.evaluations[0].loss)
    assert rows[bad.run_id].reason == "loss nan"
    assert not found.complete


def test_records_of_another_recipe_are_foreign(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    for record in records:
        commit(RunStore(tmp_path), record)
    edited = study.model_copy(update={"evaluation_tokens": 1024})
    found = status(edited, tmp_path)
    assert found.foreign == len(records)
    # Committed records of other studies are none of its business.
    export(study, tmp_path, tmp_path / "results")
    fresh = status(edited, tmp_path / "fresh", tmp_path / "results")
    assert fresh.foreign == 0
    for one in (found, fresh):
        assert (one.counts, one.complete) == ({"pending": 6}, False)
        order = [(row.variant, row.parameters) for row in one.rows]
        assert order == sorted(order)
    assert not (tmp_path / "fresh").exists()


# --- cleaning


def test_cleaning_keeps_the_best_run_of_each_variant_and_what_is_unfinished(
    study: Study, records: list[RunRecord], tmp_path: Path
) -> None:
    store = RunStore(tmp_path)
    for record in records[:-1]:
        commit(store, record, checkpoint_bytes=1000)
    unfinished = store.folder(records[-1].run_id)
    unfinished.create(records[-1].config)
    (unfinished.checkpoints / "step-00000001").mkdir(parents=True)
    commit(RunStore(tmp_path / "search"), records[0], checkpoint_bytes=1000)
    assert clean(study, tmp_path) == Freed(bytes=4000, runs=4, kept=2)
    left = {f.path.name for f in store.folders() if f.checkpoints.exists() and f.record()}
    # The losses of the middle sizes are lowest.
    assert left == {
        min(
            (one for one in records[:-1] if one.config.model.depth == variant.depth),
            key=lambda one: one.evaluations[0].loss,
        ).run_id
        for variant in study.variants
    }
    assert store.records() == sorted(records[:-1], key=lambda record: record.run_id)
    assert clean(study, tmp_path) == Freed(bytes=0, runs=0, kept=2)
    with store.folder(sorted(left)[0]).claim():
        assert clean(study, tmp_path, everything=True) == Freed(bytes=1000, runs=1, kept=0)
    assert clean(study, tmp_path, everything=True) == Freed(bytes=1000, runs=1, kept=0)
    assert unfinished.checkpoints.exists()
