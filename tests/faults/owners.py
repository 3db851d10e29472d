"""Owners of a run, each a process that does as it is told until it is killed or lets go."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from isoflop import storage
from isoflop.config import RunConfig, RunRecord
from isoflop.runs import RunClaimed, RunFolder
from isoflop.runs.metrics import MetricsLog
from isoflop.sweep.local.pool import start_server


class Owner:
    """A process that claims the run in `path`, if nobody has it."""

    def __init__(self, config: RunConfig, path: Path) -> None:
        self._line, theirs = start_server().Pipe()
        self._process = start_server().Process(target=own, args=(config, path, theirs))
        self._process.start()
        theirs.close()
        self.claimed: bool = self._line.recv()
        if not self.claimed:
            self._process.join()

    def ask(self, what: str, *arguments: Any) -> Any:
        """Have it do something and return what came of it; an exception of its is raised here."""
        self._line.send((what, arguments))
        answer = self._line.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def let_go(self) -> None:
        """Have it give up the claim and end."""
        self._line.send(("leave", ()))
        self._process.join()

    def die(self, what: str | None = None, *arguments: Any) -> None:
        """Kill it, in the middle of what it was told to do last, or of nothing."""
        if what is not None:
            self._line.send((what, arguments))
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL


def own(config: RunConfig, path: Path, line: Connection) -> None:
    """Claim a run and do as told."""
    folder = RunFolder(path)
    try:
        with folder.claim():
            folder.create(config)
            line.send(True)
            _obey(folder, line)
    except RunClaimed:
        line.send(False)


def _obey(folder: RunFolder, line: Connection) -> None:
    log: MetricsLog | None = None
    while True:
        what, arguments = line.recv()
        try:
            answer: Any = None
            match what, arguments:
                case "leave", ():
                    return
                case "begin", (int(step),):
                    answer = folder.begin_attempt(step)
                    log = folder.open_metrics(step)
                case "step", (int(step),):
                    assert log is not None
                    log.append({"step": step, "loss": 1.0 / step})
                case "save", (int(step),):
                    assert log is not None
                    log.sync()
                    folder.check_claim()
                    target = folder.checkpoints / f"step-{step:08d}"
                    if not target.exists():
                        storage.commit_folder(
                            target, lambda new, step=step: (new / "state").write_text(str(step))
                        )
                case "preempted", ():
                    folder.end_attempt("preempted")
                case "commit", (RunRecord() as record,):
                    folder.write_record(record)
        except Exception as error:
            answer = error
        line.send(answer)
