"""Who works on a run: a lease that its owner renews in a file, whose number is a token that grows.

`claim-1`, `claim-2` and so on lie in the run's folder; the highest is the claim. Creating a file
that must not be there yet is what decides between two who want the next one: it holds on network
file systems, where locks often do not. Its time is set anew while the owner lives. Whoever asks
compares it with that of a file of its own, so that no clock but the file system's counts.

On one machine a kernel lock on the file tells more, and at once: that a paused owner lives, and
that a killed one does not. Elsewhere, and where there are no locks, the lease alone counts.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from isoflop import storage

CLAIM = "claim"
LEASE_SECONDS = 90.0
"""Without being renewed for so long an owner elsewhere counts as gone."""
RENEW_SECONDS = 15.0
WATCH_SECONDS = 45.0
"""For so long a lease that ran out is watched before it is taken: a clock that jumped is not
enough. What one host writes another must see within this, less `RENEW_SECONDS`."""
TRUST_SECONDS = 30.0
"""An owner that did not renew for longer, being paused, asks for the next token before it goes on.
Nobody can have taken a younger lease."""
MOST_BYTES = 1000
"""Read of what a holder wrote, which is far shorter."""
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class RunClaimed(RuntimeError):
    """Another live process works on the run, or took it over."""


@dataclass(frozen=True)
class Holder:
    """Who says to hold a claim, for people to read."""

    pid: int
    host: str


@dataclass(frozen=True)
class Lease:
    """A claim's file as somebody found it."""

    renewed: float
    """Seconds, by the file system's clock; 0 once it was let go of."""
    locked: bool | None = None
    """Whether its owner, who is on this machine, lives; None where only the lease tells."""
    holder: Holder | None = None


def seconds() -> float:
    """Return the time since some moment, in which a suspended machine counts."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class LeaseFiles:
    """The files of the claims to one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def file(self, token: int) -> Path:
        """Return the file of a token; a ValueError where it is a symbolic link."""
        return storage.inside(self.path, f"{CLAIM}-{token}")

    def newest(self) -> int:
        """Return the highest token, 0 where there is none."""
        try:
            names = os.listdir(self.path)
        except FileNotFoundError:
            return 0
        found = [re.fullmatch(CLAIM + r"-([1-9]\d{0,8})", name) for name in names]
        return max((int(one[1]) for one in found if one), default=0)

    def create(self, token: int, owner: int) -> int:
        """Create the file of a token, lock and sign it, and return its open descriptor.

        Raises:
            FileExistsError: another process has this token.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(self.file(token), flags, 0o666)
        try:
            signed: dict[str, storage.JSON] = {"pid": owner, "host": socket.gethostname()}
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                signed["place"] = _place(os.fstat(descriptor).st_dev)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
            # It may fail: a claim of nobody knows whom is judged by its lease.
            with suppress(OSError):
                os.write(descriptor, storage.to_json(signed).encode())
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def renew(self, descriptor: int) -> None:
        """Set the time of a claim that is held."""
        os.utime(descriptor)

    def let_go(self, descriptor: int) -> None:
        """Tell that a claim is held no longer."""
        with suppress(OSError):
            os.utime(descriptor, (0, 0))
        os.close(descriptor)

    def read(self, token: int) -> Lease | None:
        """Return how a claim stands; None where its file is gone. Needs read access only."""
        try:
            # Opening it asks a file server for its time, where a look might not.
            descriptor = os.open(self.file(token), os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            written, holder, locked = None, None, None
            with suppress(OSError, ValueError):
                written = json.loads(os.read(descriptor, MOST_BYTES))
            match written:
                case {"pid": int(pid), "host": str(host), **rest}:
                    holder = Holder(pid, host)
                    if rest.get("place") == _place(status.st_dev):
                        locked = _is_locked(descriptor)
            return Lease(status.st_mtime, locked, holder)
        finally:
            os.close(descriptor)

    def now(self) -> float:
        """Return the time by the file system's clock; by this machine's where it may not write."""
        found = time.time()
        # Asked while the file has its name, without which sshfs knows it no more.
        with (
            suppress(OSError),
            tempfile.NamedTemporaryFile(prefix=storage.TEMPORARY, dir=self.path) as file,
        ):
            found = os.fstat(file.fileno()).st_mtime
        return found

    def identity(self, token: int) -> tuple[int, int] | None:
        """Return what tells a file from another one at the same place; None where it is gone."""
        try:
            status = os.stat(self.path / f"{CLAIM}-{token}", follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino


class Claim:
    """The claim to one run's folder.

    Args:
        path: the folder.
        owner: process that others are told of as the holder; None for the one that holds.
    """

    def __init__(self, path: Path, owner: int | None = None) -> None:
        self.path = path
        self.token = 0
        """Of this object's claim, which is greater than that of every earlier one; 0 before."""
        self._files = LeaseFiles(path)
        self._owner = owner
        self._held: tuple[int, int] | None = None
        self._descriptor = -1
        self._renewed = 0.0
        self._renewing = threading.Lock()

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Own the folder while the context lasts; RunClaimed when another live process does.

        Where one on another machine died its lease is watched for a while first.
        """
        if self._held is not None:
            raise RunClaimed(f"{self.path} is claimed by this process already")
        newest = self._files.newest()
        # One that is listed and not to be read yet was made just now.
        lease = self._files.read(newest)
        if newest and (lease is None or self._lives(lease) or not self._died(newest, lease)):
            raise self._taken()
        self._take(newest + 1)
        over = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(over,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()
            self._held = None
            self._files.let_go(self._descriptor)

    def _taken(self) -> RunClaimed:
        return RunClaimed(f"another process is working on {self.path}")

    def _lives(self, lease: Lease) -> bool:
        if lease.renewed == 0:
            return False
        if lease.locked is not None:
            return lease.locked
        return abs(self._files.now() - lease.renewed) <= LEASE_SECONDS

    def _died(self, token: int, lease: Lease) -> bool:
        """Watch a lease that is not renewed, if only that tells that its owner is gone."""
        if lease.renewed == 0 or lease.locked is not None:
            return True
        time.sleep(WATCH_SECONDS)
        return self._files.read(token) == lease

    def _take(self, token: int) -> None:
        began = seconds()
        try:
            descriptor = self._files.create(token, self._owner or os.getpid())
        except FileExistsError:
            raise self._taken() from None
        if self._held is not None:
            self._files.let_go(self._descriptor)
        self.token, self._descriptor, self._renewed = token, descriptor, began
        self._held = self._files.identity(token)

    def _keep(self, over: threading.Event) -> None:
        """Renew the lease until it is over; what is lost is told to whoever commits."""
        while not over.wait(RENEW_SECONDS):
            with suppress(OSError, RunClaimed):
                self.renew()

    def renew(self) -> None:
        """Renew the lease, or take the next token where this process stood still for too long.

        Raises:
            RunClaimed: another process has that token.
            OSError: it cannot be written.
        """
        with self._renewing:
            now = seconds()
            if now - self._renewed > TRUST_SECONDS:
                self._take(self.token + 1)
            else:
                self._files.renew(self._descriptor)
                self._renewed = now

    def check_claim(self) -> None:
        """Raise unless this object holds the newest claim to the folder that is there now.

        Raises:
            RuntimeError: it was never taken.
            RunClaimed: the folder was removed or replaced since, or this process was paused for so
                long that another one took its run.
        """
        if self._held is None:
            raise RuntimeError(f"{self.path} must be claimed before it is written to")
        with self._renewing:
            found = self._files.identity(self.token), self._files.identity(self.token + 1)
        if found != (self._held, None):
            raise RunClaimed(f"{self.path} was removed or taken over by another process")
        if seconds() - self._renewed > TRUST_SECONDS:
            self.renew()

    def lease(self) -> Lease | None:
        """Return how the newest claim stands, None where nobody holds one."""
        lease = self._files.read(self._files.newest())
        return lease if lease is not None and self._lives(lease) else None

    def file_time(self) -> float:
        """Return the time that a claim renewed now would have."""
        return self._files.now()

    def holder(self) -> Holder | None:
        """Return who says to hold the claim, for people to read; None where nobody does."""
        lease = self.lease()
        return None if lease is None else lease.holder

    def is_claimed(self) -> bool:
        """Return whether some live process holds the claim, as far as one look tells."""
        return self.lease() is not None


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}"


def _place(device: int) -> str:
    """Return a name of this machine and of a file system on it, within which locks hold."""
    return f"{_machine()} {device}"


def _is_locked(descriptor: int) -> bool | None:
    try:
        # Shared, so that two who ask do not take each other for an owner.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
