"""Row 19. Fault: the number of processes that train a run changes between stop and resume.

Injected: stopped at two ranks, gone on with at one, at four, at three.
Expected: the sequences of every step are those of the run at one rank, so that losses are equal but
for rounding; the attempts tell how many there were.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from one_tiny_run import Tiny
from ranked import PREEMPTED, assert_almost_same_run, train_ranked

from isoflop.runs import RunFolder
from several_ranks import ended, start_ranks


def test_row_19_any_number_of_ranks_goes_on(tmp_path: Path) -> None:
    tiny = Tiny.of(tmp_path, steps=12, sequences_per_step=5)
    changed = RunFolder(tmp_path / "changed")
    assert ended(start_ranks(2, train_ranked, tiny, changed.path, 3)) == [PREEMPTED] * 2
    assert changed.state() == "preempted"
    with pytest.warns(UserWarning, match=r"another environment \(ranks 2 -> 1\)"):
        tiny.stop(changed, 3)
    assert ended(start_ranks(4, train_ranked, tiny, changed.path, 3)) == [PREEMPTED] * 4
    assert ended(start_ranks(3, train_ranked, tiny, changed.path)) == [0] * 3
    tiny.train(tmp_path / "undisturbed")
    assert_almost_same_run(changed, RunFolder(tmp_path / "undisturbed"))
    record = changed.record()
    assert record is not None
    assert record.environment.ranks == 2
    assert [one.ranks for one in record.resumed_under] == [1, 4, 3]
    # What a rank of two holds at a time fits where one goes on.
    assert record.environment.micro_batch == 3


def test_row_19_blocks_are_split_over_as_many_ranks_as_there_are(tmp_path: Path) -> None:
    tiny = Tiny.of(tmp_path, steps=9, sequences_per_step=4)
    changed = RunFolder(tmp_path / "changed")
    split = partial(train_ranked, shard=True)
    assert ended(start_ranks(2, split, tiny, changed.path, 3)) == [PREEMPTED] * 2
    with pytest.warns(UserWarning, match=r"another environment \(ranks 2 -> 1\)"):
        tiny.stop(changed, 3)
    assert ended(start_ranks(4, train_ranked, tiny, changed.path)) == [0] * 4
    tiny.train(tmp_path / "undisturbed")
    assert_almost_same_run(changed, RunFolder(tmp_path / "undisturbed"))
    record = changed.record()
    assert record is not None
    assert record.environment.sharded
