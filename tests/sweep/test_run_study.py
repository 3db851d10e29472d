"""Studies are trained to completion, whatever happens to single runs."""

import json
import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import sweep_studies as tinies
from isoflop.planning import next_runs
from isoflop.runs import RunFolder
from isoflop.sweep import Folders, Outcome, export, run_study, search, status
from isoflop.sweep.cluster import Queue
from isoflop.sweep.local.probes import measure_apart
from isoflop.sweep.local.worker import train_run
from isoflop.sweep.precision import read_choice
from isoflop.training import train
from sweep_studies import BASELINE, ROUTED, Place, brief, starts, tiny


def test_a_study_is_really_trained_with_one_thread_a_run(corpus: Path, place: Place) -> None:
    study = brief(corpus)
    outcome = place.run(study, checkpoint_seconds=0.2, measure=measure_apart, train=train_run)
    records = place.store.records()
    assert outcome == Outcome(
        finished=len(records), diverged=0, failed=0, left=0, interrupted=False
    )
    assert len(records) >= 3
    assert next_runs(study, records) == []
    assert {record.environment.threads for record in records} == {1}
    assert all(len(f.read_metrics()[0]) == f.config().steps for f in place.store.folders())
    found = status(study, place.root)
    assert found.complete
    assert found.counts == {"finished": len(records)}
    said = place.said
    assert said.count("validation loss") == len(records)
    assert re.search(
        r"^tiny: 3 runs to train; 2 at a time, about .* s by steps measured", said, re.M
    )
    assert re.search(r"^0 of 3 runs done \| running: Baseline, .* step .* of .* left$", said, re.M)
    # Others are told of the process that schedules, not of the one that trains.
    holders = [
        json.loads((folder.path / "claim-1").read_text()) for folder in place.store.folders()
    ]
    assert {holder["pid"] for holder in holders} == {os.getpid()}
    # The same call again finds nothing to do, and needs no data for it.
    corpus.unlink()
    assert place.run(study, train=tinies.never) == outcome


@pytest.mark.slow
def test_a_step_in_parts_is_told_in_records_and_gives_the_same_losses(
    corpus: Path, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoflop.sweep.running.measured_speeds", lambda *_, **__: None)
    place.run(brief(corpus), train=train_run, micro_batch_tokens=16, recompute="full")
    records = place.store.records()
    assert len(records) == 3
    for record in records:
        plain = RunFolder(tmp_path / "plain" / record.run_id)
        expected = train(record.config, plain, cache=place.cache, threads=1)
        told, wanted = record.environment, expected.environment
        assert (told.micro_batch, told.recompute) == (1, "full")
        assert (wanted.micro_batch, wanted.recompute) == (None, "none")
        losses = [one.loss for one in record.evaluations]
        assert losses == pytest.approx([one.loss for one in expected.evaluations], rel=1e-5)


def test_the_grid_is_asked_again_until_minima_have_both_sides(corpus: Path, place: Place) -> None:
    grid = {"sizes": 3, "margin": 1, "added_at_most": 2, "centre_parameters": 30000}
    study = tiny(corpus, BASELINE, ROUTED, budget=3e9, grid=grid)
    first = {run.config.run_id for run in next_runs(study, [])}
    outcome = place.run(study)
    trained = starts(place.cache)
    assert outcome.left == 0
    assert len(trained) == len(set(trained)) == outcome.finished > len(first)
    assert first < set(trained)
    assert all(bracket.bracketed for bracket in status(study, place.root).brackets)


@pytest.mark.parametrize(
    ("trainer", "reason"),
    [
        (tinies.raises_when_large, "RuntimeError: no such kernel"),
        (tinies.killed_when_large, "killed by SIGKILL, as the system does when memory runs out"),
    ],
)
def test_a_run_that_keeps_failing_is_failed_and_siblings_finish(
    corpus: Path, place: Place, trainer, reason: str
) -> None:
    study = tiny(corpus)
    large = [r.config.run_id for r in next_runs(study, []) if tinies.is_large(r.config)]
    assert len(large) == 1
    outcome = place.run(study, train=trainer)
    assert outcome.failed == 1
    assert outcome.left == 0
    assert outcome.finished >= 2
    assert starts(place.cache).count(large[0]) == 3
    record = place.store.folder(large[0]).record()
    assert record is not None
    assert record.state == "failed"
    assert reason in (record.reason or "")
    said = place.said
    assert "attempt 1 of 3" in said
    assert "\x1b" not in said
    log = (place.store.folder(large[0]).path / "log.txt").read_text()
    assert ("Traceback" in log) == ("raises" in trainer.__name__)
    # It stays failed, with the others finished.
    assert place.run(study, train=tinies.never) == outcome


def test_a_diverged_run_is_final(corpus: Path, place: Place) -> None:
    outcome = place.run(tiny(corpus), train=tinies.diverges_when_large)
    assert outcome.diverged >= 1
    assert outcome.left == 0
    trained = starts(place.cache)
    assert len(trained) == len(set(trained))
    assert "diverged: loss nan at step 3" in place.said


def test_a_trainer_that_leaves_no_record_is_no_endless_loop(corpus: Path, place: Place) -> None:
    outcome = place.run(tiny(corpus), train=tinies.forgets)
    assert outcome.finished == 0
    assert outcome.failed == len(place.store.records()) == 3
    assert len(starts(place.cache)) == 9


def test_a_full_disk_is_no_fault_of_the_runs(corpus: Path, place: Place) -> None:
    with pytest.raises(OSError, match=r"No space left on device .* run the same command again"):
        place.run(tiny(corpus), train=tinies.finds_the_disk_full)
    assert place.store.records() == []


def test_committed_records_are_taken_up(corpus: Path, place: Place, tmp_path: Path) -> None:
    study = tiny(corpus)
    done = place.run(study)
    results = tmp_path / "results"
    export(study, place.root, results)
    elsewhere = Place(tmp_path / "elsewhere")
    assert elsewhere.run(study, train=tinies.never, results=results) == done
    assert elsewhere.store.records() == []
    found = status(study, elsewhere.root, results)
    assert found.complete
    assert all(row.taken_up for row in found.rows)
    # Only what is missing is trained.
    more = tiny(corpus, BASELINE, ROUTED)
    elsewhere.run(more, results=results)
    assert not set(starts(elsewhere.cache)) & set(starts(place.cache))
    assert status(more, elsewhere.root, results).complete


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (1, "train 1 of its runs; this one takes the 2 that nobody works on"),
        (3, "train 3 of its runs, and nothing is left to start: waiting"),
    ],
)
def test_runs_of_another_process_are_left_to_it(
    corpus: Path, place: Place, theirs: int, words: str
) -> None:
    study = tiny(corpus)
    configs = [run.config for run in next_runs(study, [])]
    started: list[str] = []

    def leave() -> None:
        while words not in place.said or len(set(starts(place.cache))) < 3 - theirs:
            time.sleep(0.05)
        time.sleep(1.5)
        started.extend(starts(place.cache))
        claims.close()

    with ExitStack() as stack:
        for config in configs[:theirs]:
            folder = place.store.folder(config.run_id)
            stack.enter_context(RunFolder(folder.path, owner=4321).claim())
        claims = stack.pop_all()
    thread = threading.Thread(target=leave)
    thread.start()
    outcome = place.run(study)
    thread.join()
    assert place.said.splitlines()[0] == f"tiny: other processes (pid 4321) {words}"
    # They were let go of without records, so they are trained here.
    ids = {config.run_id for config in configs[:theirs]}
    assert not ids & set(started)
    assert all(starts(place.cache).count(run_id) == 1 for run_id in ids)
    assert (outcome.left, outcome.finished) == (0, len(starts(place.cache)))


def test_the_second_interrupt_does_not_wait(corpus: Path, place: Place) -> None:
    def press() -> None:
        while len(starts(place.cache)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        while "stopping" not in place.said:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        place.run(tiny(corpus), train=tinies.deaf)
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert not any(folder.is_claimed() for folder in place.store.folders())


def test_who_only_watches_tells_of_no_workers_and_no_checkpoints(
    corpus: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Queue(None, 0, place.root)
    monkeypatch.setattr(watcher, "poll", lambda _: os.kill(os.getpid(), signal.SIGINT) or ())
    assert place.run(tiny(corpus), executor=watcher).interrupted
    assert place.said.endswith("stopping\n")
    assert "at a time" not in place.said


def test_trials_are_counted_and_compared_on_one_text(
    corpus: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"train": tinies.instant, "measure": tinies.unmeasured}
    monkeypatch.setattr(search, "run_study", partial(run_study, **how))
    folders = Folders(place.root, place.results, place.cache)
    grid = {"learning_rates": (4e-3, 1e-2), "width_per_block": (4,)}
    asked = {"search": grid, "recipe": {"precision": "auto"}}
    assert search.search_study(tiny(corpus, **asked), folders)[0].finished == 2
    # Settled as a study's own runs settle it.
    assert read_choice(place.root) == tinies.unmeasured()
    corpus.write_text(corpus.read_text()[::-1])
    grid["learning_rates"] += (2e-2,)
    with pytest.raises(ValueError, match="the data of study 'tiny' changed"):
        search.search_study(tiny(corpus, **asked), folders)


@pytest.mark.parametrize(
    ("asked", "options", "message"),
    [
        ({"budget": 1e3}, {}, "budgets_flops"),
        ({"data": {"corpus": "gone.txt", "sequence_length": 16}}, {}, r"gone\.txt"),
        ({}, {"workers": 0}, "is 0; expected at least 1"),
        ({}, {"threads": 0}, "is 0; expected at least 1"),
        ({}, {"micro_batch_tokens": 15}, "is 15; expected at least the 16 tokens of a sequence"),
    ],
)
def test_what_cannot_be_trained_stops_before_anything_is_written(
    corpus: Path, place: Place, asked, options, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        place.run(tiny(corpus, **asked), train=tinies.never, **options)
    assert not place.root.exists()
