"""Worker processes: one per run, forked from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

from isoflop.config.own import keep, kept_texts
from isoflop.planning import PlannedRun
from isoflop.sweep.interrupts import handled_by
from isoflop.sweep.local.worker import Job, Train, work
from isoflop.sweep.schedule.executor import Ended, Execution, Message

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


@cache
def start_server() -> ForkServerContext:
    """Return a context whose processes are forked from one that has imported the training code."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    before = dict(os.environ)
    os.environ.update(NO_THREADS)
    try:
        # Both signals may reach a whole process group; what they mean is the scheduler's to say.
        with handled_by(signal.SIG_IGN):
            forkserver.ensure_running()
    finally:
        for name in NO_THREADS:
            del os.environ[name]
        os.environ.update(before)
    return context


def _begin(texts: dict[str, str], target: Callable[..., None], *arguments: object) -> None:
    """Call `target`, once the texts of variants of one's own are known in this process."""
    for text in texts.values():
        keep(text)
    target(*arguments)


class Child:
    """A process forked from the server, and the line to it.

    Args:
        target: what it does; the other end of the line is its last argument.
        arguments: those before.
        daemon: whether it ends with this process.
    """

    def __init__(
        self, target: Callable[..., None], *arguments: object, daemon: bool = False
    ) -> None:
        context = start_server()
        self.line, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(
            target=_begin, args=(kept_texts(), target, *arguments, theirs), daemon=daemon
        )
        try:
            self.process.start()
        except BaseException:
            self.line.close()
            raise
        finally:
            theirs.close()

    def kill(self) -> None:
        """End the process at once where it has not ended by itself, and wait until it is gone."""
        self.line.close()
        self.process.kill()
        self.process.join()
        self.process.close()


class LocalPool:
    """Trains each run in a process of this machine; an `Executor`."""

    def __init__(self, train: Train, execution: Execution, cache: Path) -> None:
        self._train = train
        self._execution = execution
        self._cache = cache
        self._slots = execution.slots()
        self.capacity = len(self._slots)
        """Processes that may run at a time."""
        self._workers: dict[str, _Worker] = {}

    def start(self, run: PlannedRun, folder: Path) -> None:
        """Start training a run in its folder."""
        slot = min(set(range(len(self._slots))) - {one.slot for one in self._workers.values()})
        options = {"cache": self._cache, **vars(self._execution)}
        for ours in ("workers", "stall_seconds", "shift", "executor"):
            del options[ours]
        # Shared by all runs: those of one width and kind compile to the same code.
        compiled = {"TORCHINDUCTOR_CACHE_DIR": str(self._cache.absolute() / "compiled")}
        environment = compiled | self._slots[slot]
        job = Job(run.config, folder, self._train, options, environment, os.getpid())
        self._workers[run.config.run_id] = _Worker(job, slot)

    def poll(self, seconds: float) -> list[tuple[str, Message]]:
        """Wait so long at most for a sign of life, and return what was told, by run id."""
        signs = [sign for worker in self._workers.values() for sign in worker.signs_of_life]
        if signs:
            connection.wait(signs, seconds)
        else:
            time.sleep(seconds)
        told: list[tuple[str, Message]] = []
        for run_id, worker in list(self._workers.items()):
            code = worker.process.exitcode
            told += [(run_id, message) for message in worker.messages()]
            if code is not None:
                del self._workers[run_id]
                worker.kill()
                told.append((run_id, worker.ended or Ended("failed", self._crash(code))))
        return told

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        """Ask a run to save a checkpoint and end; or kill its process and wait until it is gone."""
        worker = self._workers.get(run_id)
        if worker is not None and at_once:
            del self._workers[run_id]
            worker.kill()
        elif worker is not None:
            with suppress(OSError):
                worker.line.send_bytes(b"stop")

    def _crash(self, code: int) -> str:
        """Return why a process is gone that said no last word."""
        if code >= 0:
            return f"the process ended with exit code {code} and no word"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
        limited = self._execution.memory_bytes is not None
        if limited and -code in (signal.SIGABRT, signal.SIGSEGV):
            memory = ", which going over the limit of memory (--memory-gib) may have led to"
        return f"the process was killed by {name}{memory}"


class _Worker(Child):
    """A process that trains one run."""

    def __init__(self, job: Job, slot: int) -> None:
        super().__init__(work, job)
        self.slot = slot
        self.ended: Ended | None = None
        """What it said last, told once its process is gone."""

    @property
    def signs_of_life(self) -> list[connection.Connection | int]:
        """What `multiprocessing.connection.wait` can wait for."""
        return [self.process.sentinel, *([] if self.line.closed else [self.line])]

    def messages(self) -> list[Message]:
        """Return what the worker said since it was asked last, but for its end."""
        said: list[Message] = []
        try:
            while not self.line.closed and self.line.poll():
                message = self.line.recv()
                if isinstance(message, Ended):
                    self.ended, message = message, None
                said.append(message)
        except (EOFError, OSError):
            self.line.close()
        return said
