"""Work on a disk of a few hundred kilobytes, in a forked child that mounted it for itself."""

from __future__ import annotations

import ctypes
import errno
import os
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

LIBRARY = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000
REFUSED = 77


def on_small_disk(place: Path, size_bytes: int, work: Callable[[Path], None]) -> None:
    """Call `work` with the path of an empty disk of `size_bytes`; what it asserts counts here.

    The disk is a tmpfs that only the child sees, and it is gone afterwards.

    Args:
        place: folder that is created; the disk is mounted below.
        size_bytes: how large the disk is.
        work: gets the disk's path; must not use threads that were started before.
    """
    disk = place / "disk"
    disk.mkdir(parents=True)
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; this child makes no use of any.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = _mounted(disk, size_bytes)
            if code == 0:
                work(disk)
        except BaseException:
            code = 1
            (place / "broken.txt").write_text(traceback.format_exc())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == REFUSED:
        pytest.skip("this system lets users mount nothing of their own")
    broken = place / "broken.txt"
    assert code == 0, broken.read_text() if broken.exists() else f"the child ended with {code}"


def _mounted(disk: Path, size_bytes: int) -> int:
    user, group = os.getuid(), os.getgid()
    if LIBRARY.unshare(NEW_USERS | NEW_MOUNTS) != 0:
        return REFUSED
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={size_bytes}".encode()
    return 0 if LIBRARY.mount(b"tmpfs", bytes(disk), b"tmpfs", 0, options) == 0 else REFUSED


def fill(disk: Path, leaving_bytes: int = 0) -> Path:
    """Write a file that leaves so much of the disk free, and return it; delete it to make room."""
    filler = disk / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)
    os.truncate(filler, max(0, filler.stat().st_size - leaving_bytes))
    return filler
