"""Who works on a run: one process at a time, told to the others, and nobody without the claim."""

import errno
import fcntl
import os
import shutil
import socket
import time
from pathlib import Path

import pytest
from one_run import CONFIG

from given import ENVIRONMENT, record_of
from isoflop.runs import Holder, RunClaimed, RunFolder, claim


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
        (run.path / "claim-2").write_bytes(written)
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


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners that are on other machines, with short leases."""
    for name, seconds in {"LEASE": 0.4, "RENEW": 0.05, "WATCH": 0.2, "TRUST": 0.15}.items():
        monkeypatch.setattr(claim, f"{name}_SECONDS", seconds)
    monkeypatch.setattr(claim, "_place", lambda _: os.urandom(4).hex())


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners that never renew."""
    monkeypatch.setattr(claim.Claim, "_keep", lambda *_: None)


@pytest.mark.parametrize("locks", [True, False])
def test_an_owner_elsewhere_is_left_alone_while_it_renews(
    run: RunFolder, elsewhere: None, monkeypatch: pytest.MonkeyPatch, locks: bool
) -> None:
    def none(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    if not locks:
        monkeypatch.setattr(fcntl, "flock", none)
    other = RunFolder(run.path)
    with run.claim():
        until = time.monotonic() + 2 * claim.LEASE_SECONDS
        while time.monotonic() < until:
            with pytest.raises(RunClaimed), other.claim():
                pass
            time.sleep(0.02)
        run.check_claim()
        assert run.token == 2
        assert run.state() == "running"
    with other.claim():
        assert other.token == 3


@pytest.mark.parametrize("hours", [-1, 1])
def test_no_clock_that_jumps_takes_a_run_from_a_living_owner_or_keeps_it_for_a_dead_one(
    run: RunFolder, elsewhere: None, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    other = RunFolder(run.path)
    for lives in (True, False):
        if not lives:
            monkeypatch.setattr(claim.Claim, "_keep", lambda *_: None)
        with run.claim():
            os.utime(run.path / f"claim-{run.token}", (time.time() + 3600 * hours,) * 2)
            if lives:
                with pytest.raises(RunClaimed), other.claim():
                    pass
                run.check_claim()
            else:
                with other.claim():
                    assert other.token == run.token + 1


def test_an_owner_paused_past_its_lease_writes_nothing_over_the_next(
    run: RunFolder, elsewhere: None, paused: None
) -> None:
    successor = RunFolder(run.path)
    with run.claim(), run.open_metrics(0) as theirs:
        theirs.append({"step": 1})
        time.sleep(claim.LEASE_SECONDS + 0.05)
        with successor.claim(), successor.open_metrics(1) as ours:
            assert successor.token == run.token + 1
            theirs.append({"step": 2, "by": "the one that woke up"})
            ours.append({"step": 2})
            for write in (
                run.check_claim,
                lambda: run.begin_attempt(0),
                lambda: run.open_metrics(0),
                lambda: run.write_record(record_of(CONFIG)),
            ):
                with pytest.raises(RunClaimed, match="taken over"):
                    write()
            with pytest.raises(RunClaimed, match="another process"):
                run.renew()
            successor.write_record(record_of(CONFIG, attempts=2))
    assert run.read_metrics()[0] == [{"step": 1}, {"step": 2}]
    assert run.record() == record_of(CONFIG, attempts=2)


def test_an_owner_that_nobody_followed_goes_on_after_a_pause(
    run: RunFolder, elsewhere: None, paused: None
) -> None:
    with run.claim():
        time.sleep(claim.LEASE_SECONDS)
        # Whoever looked before the pause ended is refused by the token that this takes.
        run.check_claim()
        assert run.token == 3
        run.write_record(record_of(CONFIG))
    assert not run.is_claimed()


def test_a_claim_that_is_a_symbolic_link_is_refused(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "claim-2").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="symbolic link"), run.claim():
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_the_file_system_s_time_is_asked_of_a_file_that_has_a_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over sshfs there are no files without one, and what was removed is not to be asked."""
    fstat = os.fstat

    def named(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        ours = str(run.path) in os.readlink(f"/proc/self/fd/{descriptor}")
        if ours and found.st_nlink == 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found

    monkeypatch.setattr("isoflop.runs.claim.os.fstat", named)
    monkeypatch.setattr("isoflop.runs.claim.time.time", lambda: 0.0)
    assert run.file_time() > 0
    assert not list(run.path.glob(".tmp-*"))
