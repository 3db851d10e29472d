"""Processes to stop and kill. All are forked from one that has imported torch, to start at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

from isoflop.sweep import running
from isoflop.sweep.local.pool import start_server

PATIENCE_SECONDS = 300.0
"""Far longer than anything takes: what does not happen by then never will."""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.005)


def start(
    target: Callable[..., object],
    *args: object,
    said: Path | None = None,
    measuring: bool = False,
) -> BaseProcess:
    """Start `target(*args)` in a process of its own.

    Args:
        target: what it does.
        args: of the target.
        said: file that takes what it prints.
        measuring: let a study that begins measure how fast it is, which takes part of a second.
    """
    process = start_server().Process(target=_alone, args=(target, args, said, measuring))
    process.start()
    return process


def _alone(
    target: Callable[..., object], args: tuple[object, ...], said: Path | None, measuring: bool
) -> None:
    # As a process that a shell starts; the server they come from is deaf to both.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    descriptor = os.open(said or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    # A scheduler in here forks its workers from the same server in place of starting another.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
    if not measuring:
        running.measured_speeds = lambda *_, **__: None
    code = target(*args)
    sys.exit(code if isinstance(code, int) else 0)


def command(folder: Path, *arguments: str) -> int:
    """Run `isoflop ARGUMENTS` in `folder`; a target for `start`."""
    from isoflop.cli import main

    os.chdir(folder)
    return main(list(arguments))


def send(process: BaseProcess, number: int) -> None:
    """Send a signal to a process that was started here."""
    assert process.pid is not None
    os.kill(process.pid, number)


def wait_until_paused(process: BaseProcess) -> None:
    """Wait until a process has stopped itself."""
    wait_for(lambda: _state(process.pid) in "TXZ")
    assert _state(process.pid) == "T"


def kill(process: BaseProcess) -> None:
    """End a process by SIGKILL, and see that this is what it ended by."""
    process.kill()
    assert ended(process) == -signal.SIGKILL


def second_rank(word: str) -> int:
    """Return the process of rank 1 among those with a word in their command line."""
    told = {b"RANK=1", b"SLURM_PROCID=1"}
    (found,) = (
        int(path.parts[2])
        for path in Path("/proc").glob("[0-9]*/environ")
        if word in (path.parent / "cmdline").read_text()
        and told & set(path.read_bytes().split(b"\0"))
    )
    return found


def ended(process: BaseProcess, patience_seconds: float = PATIENCE_SECONDS) -> int:
    """Wait for a process and return its exit code."""
    process.join(patience_seconds)
    assert process.exitcode is not None, "the process does not end"
    return process.exitcode


def others(*known: BaseProcess) -> list[int]:
    """Return the ids of the living processes forked from the same server, without those `known`."""
    server = forkserver._forkserver._forkserver_pid
    found = [int(pid) for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split()]
    return [pid for pid in found if pid not in {process.pid for process in known} and _lives(pid)]


def _lives(pid: int) -> bool:
    return _state(pid) not in "ZX"


def _state(pid: int | None) -> str:
    """Return the letter that the kernel gives for a process: T if stopped, X if gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def owner(folder: Path, *known: BaseProcess) -> int | None:
    """Return the id of the process that holds the claim of a run's folder open, if one does."""
    claim = str(folder / "claim-")
    for pid in others(*known):
        try:
            held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(path.startswith(claim) for path in held):
            return pid
    return None
