"""Who works on a run: one process at a time, told to the others, and nobody without the claim."""

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from one_run import CONFIG, record_of

from given import ENVIRONMENT
from isoflop.runs import Holder, RunClaimed, RunFolder

HOLD = """
import sys
from pathlib import Path
from isoflop.runs import RunFolder
with RunFolder(Path(sys.argv[1])).claim():
    print("claimed", flush=True)
    sys.stdin.read()
"""


def hold(run: RunFolder) -> subprocess.Popen[str]:
    """Start a process that claims the run until its input closes."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "claimed\n"
    return holder


def test_another_process_holds_the_claim_until_it_dies(run: RunFolder) -> None:
    holder = hold(run)
    try:
        assert run.is_claimed()
        assert run.holder() == Holder(holder.pid, socket.gethostname())
        assert run.state() == "running"
        with pytest.raises(RunClaimed, match="another process"), run.claim():
            pass
    finally:
        holder.kill()
        holder.communicate()
    assert not run.is_claimed()
    with run.claim():
        assert run.is_claimed()
    assert not run.is_claimed()


def test_a_holder_may_name_the_process_that_it_works_for(run: RunFolder) -> None:
    with RunFolder(run.path, owner=12).claim():
        assert run.holder() == Holder(12, socket.gethostname())
    assert run.holder() is None


@pytest.mark.parametrize("written", [b"", b"\xff", b"[1]", b'{"pid": "1", "host": "a"}'])
def test_a_holder_that_wrote_nothing_to_read_is_nobody(run: RunFolder, written: bytes) -> None:
    with run.claim():
        (run.path / "claim").write_bytes(written)
        assert run.holder() is None
        assert run.is_claimed()


def test_a_claim_that_cannot_be_signed_holds(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("isoflop.runs.claim.os.write", full)
    with run.claim():
        assert run.is_claimed()


def test_a_claim_excludes_another_object_of_the_same_process(run: RunFolder) -> None:
    other = RunFolder(run.path)
    with run.claim():
        with pytest.raises(RunClaimed), other.claim():
            pass
        with pytest.raises(RunClaimed, match="already"), run.claim():
            pass
        assert run.state() == "running"


def test_old_times_on_the_claim_mean_nothing(run: RunFolder) -> None:
    with run.claim():
        hours_ago = time.time() - 7200
        os.utime(run.path / "claim", (hours_ago, hours_ago))
        with pytest.raises(RunClaimed), RunFolder(run.path).claim():
            pass


def test_asking_for_the_state_neither_creates_nor_keeps_a_claim(run: RunFolder) -> None:
    untouched = RunFolder(run.path.parent / "none")
    assert untouched.state() == "pending"
    assert not untouched.path.exists()
    run.state()
    with run.claim():
        pass


def test_writing_needs_the_claim(run: RunFolder) -> None:
    for write in (
        lambda: run.begin_attempt(0),
        lambda: run.end_attempt("failed", "no"),
        lambda: run.pin(ENVIRONMENT, "a" * 64),
        lambda: run.open_metrics(0),
        lambda: run.write_record(record_of(CONFIG)),
    ):
        with pytest.raises(RuntimeError, match="must be claimed"):
            write()
    assert run.state() == "pending"


def test_an_owner_whose_folder_was_replaced_cannot_commit(run: RunFolder) -> None:
    with run.claim():
        shutil.rmtree(run.path)
        with pytest.raises(RunClaimed, match="taken over"):
            run.check_claim()
        successor = RunFolder(run.path)
        successor.create(CONFIG)
        with successor.claim():
            with pytest.raises(RunClaimed, match="taken over"):
                run.write_record(record_of(CONFIG))
            successor.write_record(record_of(CONFIG, attempts=2))
    record = successor.record()
    assert record is not None
    assert record.attempts == 2


def test_a_file_system_without_locks_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match=r"cannot lock .*claim: .*file system with locks"):  # noqa: SIM117
        with run.claim():
            pass


def test_a_claim_removes_what_killed_writers_left(run: RunFolder) -> None:
    (run.path / ".tmp-0123").write_text("x")
    with run.claim():
        assert not (run.path / ".tmp-0123").exists()


def test_a_claim_that_is_a_symbolic_link_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "claim").unlink()
    (run.path / "claim").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="symbolic link"), run.claim():
        pass
    assert not (tmp_path / "elsewhere").exists()
