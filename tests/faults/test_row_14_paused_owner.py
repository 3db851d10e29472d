"""Row 14. Fault: the owner of a run is paused, others go on, and it wakes up.

Injected: SIGSTOP after a step; the folder is removed or replaced, and trained anew; SIGCONT.
Expected: while it is paused its claim stands, since a kernel lock tells on one machine that it
lives. Once its folder is gone it cannot commit anything over the new owner. Where only its lease
tells, it loses the run: `test_executors`.
"""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from one_tiny_run import Tiny
from processes import ended, send, start, wait_until_paused

from isoflop.runs import RunClaimed, RunFolder


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_row_14_a_paused_owner_keeps_its_claim_and_commits_nothing_after_losing_it(
    tmp_path: Path, how: str
) -> None:
    tiny, folder = Tiny.of(tmp_path, steps=12), RunFolder(tmp_path / "run")
    said = tmp_path / "said.txt"
    process = start(tiny.pause, folder.path, 6, said=said)
    wait_until_paused(process)
    assert folder.state() == "running"
    with pytest.raises(RunClaimed, match="another process"):
        tiny.train(folder, 0.0)

    if how == "removed":
        shutil.rmtree(folder.path)
    else:
        folder.path.rename(tmp_path / "aside")
    tiny.train(folder, 0.0)
    kept = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    send(process, signal.SIGCONT)
    assert ended(process) == 1
    assert "was removed or taken over by another process" in said.read_text()
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == kept
    tiny.assert_undisturbed(folder)
