"""Worker processes: one per run, forked from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

from isoflop.planning import PlannedRun
from isoflop.sweep.worker import Ended, Job, Message, work

NO_THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}
"""Environment of the fork server, so that importing torch starts no threads: a fork would not
take them along. A run that is to use more of them says so to torch."""
PRELOADED = ("isoflop.sweep.worker", "isoflop.training", "torch._dynamo")
"""What every run would import otherwise; the last one comes with torch's optimisers."""

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Worker:
    """A process that trains one run, as its scheduler sees it."""

    def __init__(self, run: PlannedRun, job: Job, slot: int, context: ForkServerContext) -> None:
        self.run = run
        self.slot = slot
        self._memory_limited = job.options.get("memory_bytes") is not None
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
        """Return what the worker said since it was asked last."""
        said: list[Message] = []
        try:
            while not self._line.closed and self._line.poll():
                said.append(self._line.recv())
        except (EOFError, OSError):
            self._line.close()
        for message in said:
            if isinstance(message, Ended):
                self._ended = message
        return said

    @property
    def is_over(self) -> bool:
        """Whether the process is gone."""
        return self._process.exitcode is not None

    def close(self) -> Ended:
        """Return how the worker ended, after its process is gone."""
        self.messages()
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        self._line.close()
        self._process.close()
        return self._ended or Ended("failed", _crash(code, self._memory_limited))

    def ask_to_stop(self) -> None:
        """Ask for a checkpoint and an end."""
        with suppress(OSError):
            self._line.send_bytes(b"stop")

    def kill(self) -> None:
        """End the process at once and wait until it is gone."""
        self._process.kill()
        self.close()


def _crash(code: int, memory_limited: bool) -> str:
    if code >= 0:
        return f"the process ended with exit code {code} and no word"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    if memory_limited and -code in (signal.SIGABRT, signal.SIGSEGV):
        memory = ", which going over the limit of memory (--memory-gib) may have led to"
    return f"the process was killed by {name}{memory}"


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
