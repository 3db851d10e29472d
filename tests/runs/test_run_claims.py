"""Who works on a run: one process at a time, told to the others, and nobody without the claim."""

import errno
import fcntl
import os
import shutil
import socket
from pathlib import Path

import pytest
from one_run import CONFIG

from given import ENVIRONMENT, record_of
from isoflop.runs import Holder, RunClaimed, RunFolder


def test_a_claim_excludes_another_object_of_the_same_process(run: RunFolder) -> None:
    other = RunFolder(run.path)
    (run.path / ".tmp-0123").write_text("what a killed writer left")
    with run.claim():
        with pytest.raises(RunClaimed, match="another process"), other.claim():
            pass
        with pytest.raises(RunClaimed, match="already"), run.claim():
            pass
        assert run.state() == "running"
        assert run.holder() == Holder(os.getpid(), socket.gethostname())
        assert not (run.path / ".tmp-0123").exists()
    assert not run.is_claimed()
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


def test_asking_for_the_state_creates_nothing(run: RunFolder) -> None:
    untouched = RunFolder(run.path.parent / "none")
    assert untouched.state() == "pending"
    assert not untouched.path.exists()


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
    assert successor.record() == record_of(CONFIG, attempts=2)


def test_a_file_system_without_locks_is_refused(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(OSError, match=r"cannot lock .*claim: .*file system with locks"):  # noqa: SIM117
        with run.claim():
            pass


def test_a_claim_that_is_a_symbolic_link_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "claim").unlink()
    (run.path / "claim").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="symbolic link"), run.claim():
        pass
    assert not (tmp_path / "elsewhere").exists()
