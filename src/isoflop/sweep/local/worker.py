"""What happens in a worker process: it trains one run, tells how it goes, and ends.

Worker and scheduler share a two-way pipe. The scheduler sends one thing, the wish to stop, and
its death closes the pipe, which means the same: then the run saves a checkpoint and lets go of
its claim, so that the next scheduler goes on from there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from isoflop.config import RunConfig, RunRecord
from isoflop.runs import Progress, RunClaimed, RunFolder
from isoflop.storage import StorageError, make_folder
from isoflop.sweep.schedule.executor import LOG, Ended, Message

TELL_SECONDS = 0.4
"""Time between two messages on progress."""


Train = Callable[..., RunRecord]
"""What trains a run (a config, its folder, options) as `isoflop.training.train` does."""


@dataclass(frozen=True)
class Job:
    """One run, and how it is to be trained."""

    config: RunConfig
    folder: Path
    train: Train
    options: Mapping[str, object]
    """Arguments of `train`."""
    environment: Mapping[str, str]
    """Environment variables of the process."""
    scheduler: int
    """Process id of who gave the job, which others hear of as the one that has the run."""


def train_run(config: RunConfig, folder: RunFolder, **options: object) -> RunRecord:
    """Train a run; torch is imported here, so that the scheduler needs none."""
    from isoflop.training import train

    return train(config, folder, **options)  # type: ignore[arg-type]


def work(job: Job, line: Connection) -> None:
    """Train `job` and say over `line` how it goes; the entry of a worker process."""
    # Ctrl-C reaches every process of the terminal; the scheduler decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(job.environment)
    talk = _Talk(line)
    signal.signal(signal.SIGTERM, lambda *_: talk.ask_to_stop())
    warnings.showwarning = lambda message, *_args, **_more: talk.say(str(message))
    talk.say(_outcome(job, talk))


def _outcome(job: Job, talk: _Talk) -> Ended:
    from isoflop.training import Interrupted, reason_of, volunteer_for_the_oom_killer

    volunteer_for_the_oom_killer()
    try:
        make_folder(job.folder)
        _print_to(job.folder / LOG)
        job.train(
            job.config,
            RunFolder(job.folder, owner=job.scheduler),
            stop=talk.stopping,
            watch=talk.tell,
            alive=talk.tell,
            **job.options,
        )
    except Interrupted:
        return Ended("interrupted")
    except RunClaimed:
        return Ended("claimed")
    except StorageError as error:
        return Ended("unwritable", str(error))
    except Exception as error:
        traceback.print_exc()
        return Ended("failed", reason_of(error))
    return Ended("recorded")


def _print_to(path: Path) -> None:
    """Send what this process prints to a file: it would tear the scheduler's live line."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o666)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)


class _Talk:
    """The worker's end of the pipe."""

    def __init__(self, line: Connection) -> None:
        self._line = line
        self._told = 0.0
        self._asked = False

    def ask_to_stop(self) -> None:
        self._asked = True

    def stopping(self) -> bool:
        """Return whether the scheduler asked to stop, or is gone."""
        try:
            if not self._asked and self._line.poll():
                self._line.recv_bytes()
                self._asked = True
        except (EOFError, OSError):
            self._asked = True
        return self._asked

    def tell(self, progress: Progress | None = None) -> None:
        """Tell of a step or of being alive, a few times a second and at the last step."""
        now = time.monotonic()
        due = now - self._told >= TELL_SECONDS
        if due:
            self._told = now
        if due or (progress is not None and progress.step == progress.steps):
            self.say(progress)

    def say(self, message: Message) -> None:
        # Nobody listens any more; `stopping` finds out.
        with suppress(OSError):
            self._line.send(message)
