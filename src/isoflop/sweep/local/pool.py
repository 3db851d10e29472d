"""Worker processes: one per run, forked from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from isoflop.planning import PlannedRun
from isoflop.sweep.local.worker import Job, work
from isoflop.sweep.schedule.executor import Alive, Ended, Message

NO_THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
"""Environment of the fork server, so that importing torch starts no threads: a fork would not
take them along. A run that is to use more of them says so to torch."""
PRELOADED = ("isoflop.sweep.local.worker", "isoflop.training", "torch._dynamo")
"""What every run would import otherwise; the last one comes with torch's optimisers."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class LocalPool:
    """Trains each run in a process of this machine; an `Executor`.

    Args:
        slots: environment variables of each process that may run at a time.
        job: makes what a process is to do of a run, its folder and its slot.
        limited: whether the memory of the processes is limited, which may be why one is killed.
    """

    def __init__(
        self, slots: Sequence[Mapping[str, str]], job: Callable[..., Job], *, limited: bool
    ) -> None:
        self._slots = slots
        self._job = job
        self._limited = limited
        self._workers: dict[str, _Worker] = {}

    @property
    def capacity(self) -> int:
        """Processes that may run at a time."""
        return len(self._slots)

    def start(self, run: PlannedRun, folder: Path) -> None:
        """Start training a run in its folder."""
        slot = min(set(range(len(self._slots))) - {one.slot for one in self._workers.values()})
        job = self._job(run.config, folder, self._slots[slot])
        self._workers[run.config.run_id] = _Worker(job, slot, start_server())

    def poll(self, seconds: float) -> list[tuple[str, Message]]:
        """Wait so long at most for a sign of life, and return what was told, by run id."""
        signs = [sign for worker in self._workers.values() for sign in worker.signs_of_life]
        if signs:
            connection.wait(signs, seconds)
        else:
            time.sleep(seconds)
        told: list[tuple[str, Message]] = []
        for run_id, worker in list(self._workers.items()):
            over = worker.is_over
            told += [(run_id, message) for message in worker.messages()]
            if over:
                del self._workers[run_id]
                told.append((run_id, worker.close(self._limited)))
        return told

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """Ask a run to save a checkpoint and end; or kill its process and wait until it is gone."""
        worker = self._workers.get(run_id)
        if worker is not None and at_once:
            del self._workers[run_id]
            worker.kill()
        elif worker is not None:
            worker.ask_to_stop()


class _Worker:
    """A process that trains one run."""

    def __init__(self, job: Job, slot: int, context: ForkServerContext) -> None:
        self.slot = slot
        self._ended: Ended | None = None
        self._line, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(target=work, args=(job, theirs))
        try:
            self._process.start()
        except BaseException:
            self._line.close()
            raise
        finally:
            theirs.close()

    @property
    def signs_of_life(self) -> tuple[connection.Connection | int, ...]:
        """What `multiprocessing.connection.wait` can wait for."""
        return (
            (self._process.sentinel,) if self._line.closed else (self._line, self._process.sentinel)
        )

    def messages(self) -> list[Message]:
        """Return what the worker said since it was asked last; its end is kept for `close`."""
        said: list[Message] = []
        try:
            while not self._line.closed and self._line.poll():
                message = self._line.recv()
                if isinstance(message, Ended):
                    self._ended, message = message, Alive()
                said.append(message)
        except (EOFError, OSError):
            self._line.close()
        return said

    @property
    def is_over(self) -> bool:
        """Whether the process is gone."""
        return self._process.exitcode is not None

    def close(self, memory_limited: bool) -> Ended:
        """Return how the worker ended, after its process is gone."""
        self.messages()
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._line.close()
        self._process.close()
        return self._ended or Ended("failed", _crash(code, memory_limited))

    def ask_to_stop(self) -> None:
        """Ask for a checkpoint and an end."""
        with suppress(OSError):
            self._line.send_bytes(b"stop")

    def kill(self) -> None:
        """End the process at once and wait until it is gone."""
        self._process.kill()
        self.close(memory_limited=False)


def _crash(code: int, memory_limited: bool) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} and no word"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    if memory_limited and -code in (signal.SIGABRT, signal.SIGSEGV):
        memory = ", which going over the limit of memory (--memory-gib) may have led to"
    return f"the process was killed by {name}{memory}"


@cache
def start_server() -> ForkServerContext:
    """Return a context whose processes are forked from one that has imported the training code."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    with _environment(NO_THREADS), _deaf_to_stop_signals():
        forkserver.ensure_running()
    return context


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _deaf_to_stop_signals() -> Iterator[None]:
    """Let processes that are started inside ignore Ctrl-C and SIGTERM from the start.

    Both may reach a whole process group; what they mean is the scheduler's to say.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
