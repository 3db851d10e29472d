"""A study killed again and again, at seeded moments, and started with the same call each time."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from processes import ended, others, start, wait_for

import sweep_studies
from isoflop.config import RunRecord, Study
from isoflop.planning import PlannedRun
from isoflop.runs import RunStore, without_progress
from isoflop.sweep.local.probes import measure_apart
from isoflop.sweep.schedule.attempts import FAILURES, LOST, failures
from sweep_studies import unmeasured

WORKERS = 2
STUDY_SECONDS = 3600.0
"""Far longer than a whole study takes."""
UNKNOWN = 255
"""Exit code of one killed while it asked for a worker: the server that would tell ends too."""
VICTIMS = ("worker", "scheduler", "group")


def every_size(study: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
    """Return the first runs of a study that have no record; losses add none."""
    from isoflop.planning import next_runs

    done = {record.run_id for record in records}
    return [run for run in next_runs(study, []) if run.config.run_id not in done]


def train_study(study: Study, folder: Path, checkpoint_seconds: float, measuring: bool) -> None:
    """Train a study; a target for `start`."""
    outcome = sweep_studies.train_study(
        study,
        folder / "study",
        folder / "cache",
        workers=WORKERS,
        compiled=False,
        checkpoint_seconds=checkpoint_seconds,
        planner=every_size,
        measure=measure_apart if measuring else unmeasured,
    )
    assert (outcome.left, outcome.failed, outcome.diverged) == (0, 0, 0)


class Killer:
    """Starts a study and kills it, until it was killed so often.

    Args:
        study: what is trained.
        folder: where.
        seed: of the moments and the victims.
        checkpoint_seconds: time between checkpoints of a run.
        measuring: let it be killed while it measures its speed as well.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        seed: int = 0,
        checkpoint_seconds: float = 30.0,
        measuring: bool = False,
    ) -> None:
        self.study = study
        self.folder = folder
        self.store = RunStore(folder / "study")
        self.checkpoint_seconds = checkpoint_seconds
        self.measuring = measuring
        self.chance = random.Random(seed)
        self.victims: Counter[str] = Counter()
        self.scheduler: BaseProcess | None = None
        self.steps = sum(run.config.steps for run in every_size(study, []))

    def kill(self, times: int) -> None:
        """Kill workers, the scheduler or all of them, so often, spread over the whole study."""
        for number in range(times):
            self._start()
            # Every third at once, whatever is going on; the others once the study has come on.
            if number % 3:
                share = (number + self.chance.random()) / (times + 2)
                wait_for(lambda share=share: self._done() >= share * self.steps)
            time.sleep(self.chance.uniform(0, 0.05))
            self._strike(self._victim())

    def finish(self) -> None:
        """Let the study end."""
        self._start()
        assert self.scheduler is not None
        assert ended(self.scheduler, STUDY_SECONDS) == 0

    def _start(self) -> None:
        if self.scheduler is None:
            said = self.folder / "said.txt"
            self.scheduler = start(
                train_study,
                self.study,
                self.folder,
                self.checkpoint_seconds,
                self.measuring,
                said=said,
                measuring=self.measuring,
            )
        assert self.scheduler.exitcode is None, "the study ended before its last kill"

    def _done(self) -> int:
        return sum(len(folder.read_metrics()[0]) for folder in self.store.folders())

    def _victim(self) -> str:
        """Return who is killed, but for whom that would rightly be one failure too many."""
        allowed = list(VICTIMS)
        found = [without_progress(folder.attempts_made()) for folder in self.store.folders()]
        if any(len(failures(one)) + WORKERS >= FAILURES for one in found):
            allowed.remove("worker")
        lost = [sum(attempt.ending is None for attempt in one) for one in found]
        assert all(one < LOST - 1 for one in lost), "killed too fast to come on"
        return self.chance.choice(allowed)

    def _strike(self, victim: str) -> None:
        assert self.scheduler is not None
        workers = others(self.scheduler)
        if victim == "worker" and not workers:
            victim = "scheduler"
        self.victims[victim] += 1
        doomed = {
            "worker": workers[: 1 + self.chance.randrange(len(workers))] if workers else [],
            "scheduler": [self.scheduler.pid],
            "group": [self.scheduler.pid, *workers],
        }[victim]
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if victim != "worker":
            assert ended(self.scheduler) in (-signal.SIGKILL, UNKNOWN)
            self.scheduler = None
