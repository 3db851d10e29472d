"""Studies are trained to completion, whatever happens to single runs."""

import io
import json
import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

import sweep_studies as tinies
from isoflop.config import Study
from isoflop.planning import next_runs
from isoflop.runs import RunFolder, RunStore
from isoflop.sweep import Outcome, export, status
from isoflop.sweep.local.probes import measure_apart
from sweep_studies import BASELINE, ROUTED, brief, starts, tiny


class Place:
    """Where a study is trained, and what was said meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "runs" / "tiny"
        self.cache = folder / "cache"
        self.store = RunStore(self.root)
        self.said = io.StringIO()

    def run(self, study: Study, **options) -> Outcome:
        console = Console(file=self.said, width=60)
        known = {"console": console, "workers": 2, "measure": tinies.unmeasured}
        return tinies.train_study(study, self.root, self.cache, **{**known, **options})


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_study_is_really_trained_with_one_thread_a_run(corpus: Path, place: Place) -> None:
    study = brief(corpus)
    outcome = place.run(study, checkpoint_seconds=0.2, measure=measure_apart)
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
    said = place.said.getvalue()
    assert said.count("validation loss") == len(records)
    assert re.search(
        r"^tiny: 3 runs to train; 2 at a time, about .* s by steps measured", said, re.M
    )
    assert re.search(r"^0 of 3 runs done \| running: Baseline, .* step .* of .* left$", said, re.M)
    # Others are told of the process that schedules, not of the one that trains.
    holders = [json.loads((folder.path / "claim").read_text()) for folder in place.store.folders()]
    assert {holder["pid"] for holder in holders} == {os.getpid()}
    # The same call again finds nothing to do, and needs no data for it.
    corpus.unlink()
    assert place.run(study, train=tinies.never) == outcome


def test_the_grid_is_asked_again_until_minima_have_both_sides(corpus: Path, place: Place) -> None:
    grid = {"sizes": 3, "margin": 1, "added_at_most": 2, "centre_parameters": 30000}
    study = tiny(corpus, BASELINE, ROUTED, budget=3e9, grid=grid)
    first = {run.config.run_id for run in next_runs(study, [])}
    outcome = place.run(study, train=tinies.instant)
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
    said = place.said.getvalue()
    assert "attempt 1 of 3" in said
    assert "\x1b" not in said
    # It stays failed, with the others finished.
    assert place.run(study, train=tinies.never) == outcome


def test_what_a_failing_run_printed_is_kept(corpus: Path, place: Place) -> None:
    place.run(tiny(corpus), train=tinies.raises_when_large)
    logs = [(folder.path / "log.txt").read_text() for folder in place.store.folders()]
    assert sum("Traceback" in log and "raises_when_large" in log for log in logs) == 1


def test_a_run_that_dies_once_is_trained_again(corpus: Path, place: Place) -> None:
    outcome = place.run(tiny(corpus), train=tinies.killed_once)
    assert outcome.failed == 0
    assert outcome.finished >= 3
    assert len(starts(place.cache)) == 2 * outcome.finished


def test_a_diverged_run_is_final(corpus: Path, place: Place) -> None:
    outcome = place.run(tiny(corpus), train=tinies.diverges_when_large)
    assert outcome.diverged >= 1
    assert outcome.left == 0
    trained = starts(place.cache)
    assert len(trained) == len(set(trained))
    assert "diverged: loss nan at step 3" in place.said.getvalue()


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
    done = place.run(study, train=tinies.instant)
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
    elsewhere.run(more, train=tinies.instant, results=results)
    assert not set(starts(elsewhere.cache)) & set(starts(place.cache))
    assert status(more, elsewhere.root, results).complete


def test_a_missing_corpus_stops_before_anything_is_written(place: Place, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gone\.txt"):
        place.run(tiny(tmp_path / "gone.txt"), train=tinies.never)
    assert not place.root.exists()


def test_a_study_that_cannot_be_planned_stops_first(corpus: Path, place: Place) -> None:
    with pytest.raises(ValueError, match="budgets_flops"):
        place.run(tiny(corpus, budget=1e3), train=tinies.never)
    assert not place.root.exists()


def test_changed_data_is_refused(corpus: Path, place: Place) -> None:
    study = tiny(corpus)
    place.run(study, train=tinies.instant)
    corpus.write_text(corpus.read_text().replace("a", "b", 1))
    more = tiny(corpus, BASELINE, ROUTED)
    with pytest.raises(ValueError, match=r"data of study 'tiny' changed: run .* SHA-256 .* now"):
        place.run(more, train=tinies.never)


def test_an_edited_study_says_what_changed_and_keeps_what_it_can(
    corpus: Path, place: Place
) -> None:
    first = place.run(tiny(corpus), train=tinies.instant)
    assert "changed" not in place.said.getvalue()
    place.run(tiny(corpus, BASELINE, ROUTED), train=tinies.instant)
    said = place.said.getvalue()
    assert "changed since it was run last: variants.MoD added" in said
    assert f"{first.finished} of the runs recorded so far are part of it" in said
    trained = starts(place.cache)
    assert len(trained) == len(set(trained))


def test_a_run_of_another_process_is_left_to_it(corpus: Path, place: Place) -> None:
    study = tiny(corpus)
    theirs = next_runs(study, [])[0].config
    folder = place.store.folder(theirs.run_id)
    started: list[str] = []

    def other() -> None:
        while len(set(starts(place.cache))) < 2:
            time.sleep(0.05)
        time.sleep(1.5)
        started.extend(starts(place.cache))
        lease.__exit__(None, None, None)

    lease = RunFolder(folder.path, owner=4321).claim()
    lease.__enter__()
    thread = threading.Thread(target=other)
    thread.start()
    outcome = place.run(study, train=tinies.instant)
    thread.join()
    assert theirs.run_id not in started
    told = place.said.getvalue().splitlines()[0]
    assert told == (
        "tiny: another process (pid 4321) trains 1 run of this study; this one takes the 2 that "
        "nobody works on"
    )
    # It was let go of without a record, so it is trained here.
    assert starts(place.cache).count(theirs.run_id) == 1
    assert outcome.left == 0


def test_where_others_have_all_runs_it_waits_and_says_so(corpus: Path, place: Place) -> None:
    study = tiny(corpus)
    waiting = "nothing is left to start: waiting for its 3 runs"
    with ExitStack() as claims:
        for run in next_runs(study, []):
            folder = place.store.folder(run.config.run_id)
            claims.enter_context(RunFolder(folder.path, owner=4321).claim())
        later = claims.pop_all()

    def leave() -> None:
        while waiting not in place.said.getvalue():
            time.sleep(0.05)
        time.sleep(1.5)
        later.close()

    thread = threading.Thread(target=leave)
    thread.start()
    outcome = place.run(study, train=tinies.instant)
    thread.join()
    # They were let go of without records.
    assert outcome.finished == len(starts(place.cache)) >= 3


def test_the_second_interrupt_does_not_wait(corpus: Path, place: Place) -> None:
    def press() -> None:
        while len(starts(place.cache)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        while "stopping" not in place.said.getvalue():
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


@pytest.mark.parametrize("options", [{"workers": 0}, {"threads": 0}])
def test_impossible_numbers_are_refused(corpus: Path, place: Place, options) -> None:
    with pytest.raises(ValueError, match="is 0; expected at least 1"):
        place.run(tiny(corpus), train=tinies.never, **options)
