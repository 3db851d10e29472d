"""Who trains a study beside this process, and what that leaves to do."""

import os
import socket
from pathlib import Path

import pytest

from isoflop.planning import next_runs
from isoflop.runs import Holder, RunFolder, RunStore
from isoflop.sweep.running import holders_of, shared_words
from sweep_studies import tiny

HERE = Holder(1234, "here")


@pytest.mark.parametrize(
    ("holders", "free", "words"),
    [
        ([HERE], 1, " (pid 1234) train 1 of its runs; this one takes the 1 that nobody works on"),
        (
            [HERE, Holder(5, "there"), HERE],
            0,
            " (pid 1234, 5 on there) train 3 of its runs, and nothing is left to start: waiting",
        ),
        ([None], 2, " train 1 of its runs; this one takes the 2 that nobody works on"),
    ],
)
def test_it_is_said_who_trains_what(holders: list[Holder | None], free: int, words: str) -> None:
    assert shared_words(holders, free, "here") == f"other processes{words}"


def test_only_claimed_runs_have_holders(tmp_path: Path) -> None:
    needed = next_runs(tiny(Path("text.txt")), [])
    store = RunStore(tmp_path)
    mine, theirs, unsigned = (
        RunFolder(store.folder(run.config.run_id).path, owner=pid)
        for run, pid in zip(needed, (None, 77, None), strict=True)
    )
    assert holders_of(store, needed) == []
    with mine.claim(), theirs.claim(), unsigned.claim():
        (unsigned.path / "claim-1").write_bytes(b"")
        host = socket.gethostname()
        assert holders_of(store, needed) == [Holder(os.getpid(), host), Holder(77, host), None]
