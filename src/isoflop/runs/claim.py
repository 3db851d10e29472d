"""Who works on a run: a lock that the kernel holds for its owner and takes back when it dies."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from isoflop import storage

CLAIM = "claim"
MOST_BYTES = 1000
"""Read of what a holder wrote, which is far shorter."""
PATIENCE_SECONDS = 0.5
"""How long a claim waits. Longer than the moment for which asking about it locks the file."""


class RunClaimed(RuntimeError):
    """Another live process works on the run, or took it over."""


@dataclass(frozen=True)
class Holder:
    """Who says to hold a claim. The lock is what counts: this is for people to read."""

    pid: int
    host: str


class Claim:
    """The lock of one run's folder: a file in it that stays when the lock is let go of.

    Args:
        path: the folder.
        owner: process that others are told of as the holder; None for the one that holds.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self.path = path
        self._owner = owner
        self._held: tuple[int, int] | None = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the lock while the context lasts; RunClaimed when another live process does.

        Raises:
            OSError: the file system has no locks.
        """
        if self._held is not None:
            raise RunClaimed(f"{self.path} is claimed by this process already")
        path = storage.inside(self.path, CLAIM)
        # Where there are no kernel locks filelock would fall back to a file that must not exist,
        # which a killed owner leaves behind.
        lock = FileLock(path, PATIENCE_SECONDS, thread_local=False, fallback_to_soft=False)
        try:
            lock.acquire(poll_interval=0.01)
        except Timeout:
            raise RunClaimed(f"another process is working on {self.path}") from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                raise
            raise OSError(
                error.errno,
                f"cannot lock {path}: {error.strerror}; runs need a file system with locks",
            ) from error
        try:
            self._held = self._identity()
            self._sign()
            yield
        finally:
            self._held = None
            lock.release()

    def check_claim(self) -> None:
        """Raise unless this object holds the lock of the file that is there now.

        Raises:
            RuntimeError: it was never taken.
            RunClaimed: the file was removed or replaced since, say while this process was
                stopped: whoever made the new one owns the run now.
        """
        if self._held is None:
            raise RuntimeError(f"{self.path} must be claimed before it is written to")
        if self._identity() != self._held:
            raise RunClaimed(f"{self.path} was removed or taken over by another process")

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path / CLAIM, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _sign(self) -> None:
        """Write down who holds the lock. It may fail: nothing but words depends on it."""
        holder: dict[str, storage.JSON] = {
            "pid": self._owner or os.getpid(),
            "host": socket.gethostname(),
        }
        with suppress(OSError), _opened(self.path / CLAIM, os.O_WRONLY | os.O_TRUNC) as descriptor:
            os.write(descriptor, storage.to_json(holder).encode())

    def holder(self) -> Holder | None:
        """Return who says to hold the lock, for people to read; None where nobody does."""
        written = None
        if self.is_claimed():
            with (
                suppress(OSError, ValueError),
                _opened(self.path / CLAIM, os.O_RDONLY) as descriptor,
            ):
                written = json.loads(os.read(descriptor, MOST_BYTES))
        match written:
            case {"pid": int(pid), "host": str(host)}:
                return Holder(pid, host)
        return None

    def is_claimed(self) -> bool:
        """Return whether some live process holds the lock. Needs read access only."""
        try:
            with _opened(storage.inside(self.path, CLAIM), os.O_RDONLY) as descriptor:
                # Shared, so that two who ask do not take each other for an owner.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            pass
        return False


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
