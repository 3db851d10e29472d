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
        (
            [HERE],
            1,
            "another process (pid 1234) trains 1 run of this study; this one takes the one that "
            "nobody works on",
        ),
        (
            [HERE, Holder(5, "there"), HERE],
            0,
            "2 other processes (pids 1234 and 5 on there) train 3 runs of this study, and nothing "
            "is left to start: waiting for their 3 runs",
        ),
        (
            [None],
            2,
            "another process trains 1 run of this study; this one takes the 2 that nobody works on",
        ),
    ],
)
def test_it_is_said_who_trains_what(holders: list[Holder | None], free: int, words: str) -> None:
    assert shared_words(holders, free, "here") == words


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
