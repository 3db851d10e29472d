"""A fault at every system call of some work in turn, injected by strace into forked children.

`strace` counts a process's calls of one kind and strikes at call number STRIKE. A child that is to
meet the fault at its n-th call makes STRIKE - n void ones first, so that one strace serves them
all, and Python and torch are loaded once. It sees what Rust does, too.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import socket
import subprocess
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

NUMBERS = {
    "write": 1,
    "openat": 257,
    "fsync": 74,
    "ftruncate": 77,
    "rename": 82,
    "renameat": 264,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "unlinkat": 263,
}
"""System calls that change a disk, by their numbers on x86-64."""

STRIKE = 64
"""More calls of one kind than any child makes."""

DONE, REFUSED, BROKEN = 0, 3, 4
"""Exit codes of a child: the work was done, an OSError told of a fault, anything else."""

LIBRARY = ctypes.CDLL(None)


@dataclass(frozen=True)
class Struck:
    """A child that met the fault at its `nth` call of a kind."""

    call: str
    nth: int
    folder: Path
    """Where it worked."""
    code: int
    """Its exit code, or less the signal that killed it."""
    told: str
    """What its error said."""


def strike(
    work: Callable[[Path], None],
    template: Path,
    place: Path,
    fault: str,
    calls: tuple[str, ...] = tuple(NUMBERS),
    *,
    lasting: bool = False,
) -> tuple[list[Struck], str]:
    """Do `work` in a copy of `template` once for every system call that it makes.

    Args:
        work: gets the copy's path.
        template: folder to start from.
        place: empty folder for the copies.
        fault: of strace, `signal=KILL` or `error=EIO`.
        calls: kinds of system calls to strike at.
        lasting: strike at every later call of the kind, too.

    Returns:
        The children that met it, and what strace saw: a call on each line, file descriptors with
        their paths.
    """
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls are those of x86-64")
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; this child makes no use of any.
        warnings.simplefilter("ignore", DeprecationWarning)
        server = os.fork()
    if server == 0:
        try:
            _serve(work, template, place, f"{fault}:when={STRIKE}{'+' if lasting else ''}", calls)
        except BaseException:
            (place / "broken.txt").write_text(traceback.format_exc())
        finally:
            os._exit(0)
    os.waitpid(server, 0)
    broken = place / "broken.txt"
    assert not broken.exists(), broken.read_text()
    log = (place / "strace.txt").read_text()
    children = []
    for line in (place / "outcomes.jsonl").read_text().splitlines():
        call, nth, pid, code = json.loads(line)
        folder = place / f"{call}-{nth}"
        told = folder.with_suffix(".txt")
        child = Struck(call, nth, folder, code, told.read_text() if told.exists() else "")
        if code != DONE:
            children.append(child)
        else:
            # The last of its kind had no n-th call to be struck at.
            own = [one for one in log.splitlines() if one.startswith(f"{pid} ")]
            assert not any("(INJECTED)" in one for one in own), f"{call} {nth} was swallowed"
    return children, log


def _serve(
    work: Callable[[Path], None], template: Path, place: Path, fault: str, calls: tuple[str, ...]
) -> None:
    copy = _copier(template)
    # Once undisturbed, so that what Python loads late is there when calls are counted.
    shutil.copytree(template, place / "first")
    work(place / "first")
    strace = _attach(place / "strace.txt", f"{','.join(calls)}:{fault}", calls)
    outcomes = []
    for call in calls:
        for nth in range(1, STRIKE):
            folder = place / f"{call}-{nth}"
            copy(folder)
            pid, code = _in_child(lambda c=call, n=nth, folder=folder: _meet(work, c, n, folder))
            outcomes.append([call, nth, pid, code])
            if code == DONE:
                break
    strace.terminate()
    strace.wait()
    (place / "outcomes.jsonl").write_text("".join(json.dumps(one) + "\n" for one in outcomes))


def _attach(log: Path, injection: str, calls: tuple[str, ...]) -> subprocess.Popen[str]:
    """Start a strace of this process and of the children it will have."""
    any_process = ctypes.c_ulong(-1)
    LIBRARY.prctl(0x59616D61, any_process, 0, 0, 0)  # PR_SET_PTRACER, where Yama restricts it
    # fmt: off
    strace = subprocess.Popen(
        ["strace", "-f", "-y", "-o", log, "-e", f"trace={','.join(calls)}",
         "-e", f"inject={injection}", "-p", str(os.getpid())],
        stderr=subprocess.PIPE, text=True,
    )
    # fmt: on
    assert strace.stderr is not None
    said = strace.stderr.readline()
    if "attached" not in said:
        raise RuntimeError(f"strace cannot attach: {said}")
    return strace


def _in_child(work: Callable[[], int]) -> tuple[int, int]:
    """Return the id and the exit code of a child that did `work`."""
    pid = os.fork()
    if pid == 0:
        code = BROKEN
        try:
            code = work()
        finally:
            os._exit(code)
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _copier(template: Path) -> Callable[[Path], None]:
    """Return what copies a folder in a process that no strace sees, since it counts all calls."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        while name := theirs.recv(4096):
            shutil.copytree(template, name.decode())
            theirs.send(b"copied")
        os._exit(0)
    theirs.close()

    def copy(folder: Path) -> None:
        ours.send(str(folder).encode())
        assert ours.recv(4096) == b"copied", f"{template} cannot be copied to {folder}"

    return copy


def _meet(work: Callable[[Path], None], call: str, nth: int, folder: Path) -> int:
    for _ in range(STRIKE - nth):
        LIBRARY.syscall(NUMBERS[call], ctypes.c_long(-1), ctypes.c_long(0), 0, 0)
    try:
        work(folder)
    except OSError as error:
        code, told = REFUSED, str(error)
    except Exception:
        code, told = BROKEN, traceback.format_exc()
    else:
        return DONE
    _tell(folder.with_suffix(".txt"), told)
    return code


def _tell(path: Path, text: str) -> None:
    """Write a file by calls that no fault strikes."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    os.pwrite(descriptor, text.encode(), 0)
    os.close(descriptor)
