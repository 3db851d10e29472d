"""Row 13. Fault: two `isoflop run` on one study.

Injected: two schedulers in one folder, each with a run under way before either goes on.
Expected: every run is committed exactly once, and no work is done twice while both are alive.
"""

from __future__ import annotations

from pathlib import Path

import trainers
from processes import ended, start

from isoflop.runs import RunStore
from isoflop.sweep import status
from outcomes import assert_whole
from sweep_studies import Study, brief, train_study, unmeasured, write_corpus


def schedule(study: Study, folder: Path) -> None:
    """Train a study, one run at a time; a target for `start`."""
    outcome = train_study(
        study,
        folder / "study",
        folder / "cache",
        workers=1,
        train=trainers.together,
        measure=unmeasured,
    )
    assert (outcome.left, outcome.failed) == (0, 0)


def test_row_13_two_schedulers_share_the_runs(tmp_path: Path) -> None:
    study = brief(write_corpus(tmp_path / "text.txt"))
    pair = [start(schedule, study, tmp_path, said=tmp_path / f"said{n}.txt") for n in range(2)]
    assert [ended(process) for process in pair] == [0, 0]
    assert status(study, tmp_path / "study").complete
    store = RunStore(tmp_path / "study")
    assert_whole(store)
    for folder in store.folders():
        assert folder.state() == "finished"
        assert [one.step for one in folder.attempts_made()] == [0]
