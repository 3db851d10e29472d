"""Keeps workers busy with what the grid asks for, and asks again whenever a run ends."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isoflop.config import RunRecord, Study
from isoflop.planning import PlannedRun, achieved_flops
from isoflop.planning.assignment import assign
from isoflop.runs import RunClaimed
from isoflop.storage import StorageError
from isoflop.sweep.interrupts import Wish, stop_signals
from isoflop.sweep.ledger import Ledger
from isoflop.sweep.schedule.attempts import FAILURES, commit_failure, note_failure, tries
from isoflop.sweep.schedule.display import Display, describe, duration
from isoflop.sweep.schedule.executor import LOG, Alive, Ended, Executor, Step, Warned
from isoflop.sweep.schedule.forecast import Forecast, Going, Meter, View
from isoflop.sweep.schedule.watchdog import Watchdog

Planner = Callable[[Study, Sequence[RunRecord]], list[PlannedRun]]
"""Says which runs a study needs that have no record yet."""

TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""Time between two looks at what other processes work on and have recorded."""


@dataclass(frozen=True)
class Outcome:
    """How training a study ended."""

    finished: int
    diverged: int
    failed: int
    left: int
    """Runs still needed, as far as the grid knows; 0 when the study is complete."""
    interrupted: bool
    """Whether SIGINT or SIGTERM ended it; the same command goes on."""
    terminated: bool = False
    """Whether that was SIGTERM."""


@dataclass(frozen=True)
class Training:
    """Where every run of a study is trained, and what is noted of one that cannot be."""

    executor: Executor
    device: str
    data_sha256: str
    stall_seconds: float
    """Silence after which a run counts as hanging."""


class Scheduler:
    """Trains what a study needs until it needs nothing more, or somebody asks to stop.

    Args:
        study: what is asked.
        ledger: its records.
        needed: what the grid asks for now.
        training: how to train.
        forecast: expects how many runs there will be, and how long they take.
        display: told what happens.
        planner: says what is needed once a run has ended.
    """

    def __init__(
        self,
        study: Study,
        ledger: Ledger,
        needed: list[PlannedRun],
        training: Training,
        forecast: Forecast,
        display: Display,
        planner: Planner,
    ) -> None:
        self.study = study
        self.planner = planner
        self.ledger = ledger
        self.needed = needed
        self.training = training
        self.forecast = forecast
        self.display = display
        self.executor = training.executor
        self.running: dict[str, PlannedRun] = {}
        self.steps: dict[str, Step] = {}
        self.attempts: dict[str, int] = {}
        self.watchdog = Watchdog(training.stall_seconds)
        self.meter = Meter()
        self.unwritable: str | None = None
        self._count()
        self._look()

    def run(self) -> Outcome:
        """Train, and return how it ended.

        Raises:
            OSError: the disk is full or broken.
            KeyboardInterrupt: the second Ctrl-C.
        """
        wish = Wish()
        if self.needed:
            self._tell_expected()
            with stop_signals() as wish:
                self._train(wish)
        if self.unwritable is not None:
            raise OSError(self.unwritable)
        return Outcome(
            finished=self.states["finished"],
            diverged=self.states["diverged"],
            failed=self.states["failed"],
            left=len(self.needed),
            interrupted=wish.to_stop,
            terminated=wish.by_sigterm,
        )

    def _tell_expected(self) -> None:
        """Say how much there is to train and how long that takes, if its speed was measured."""
        view = self._view()
        if view.left and view.remaining_seconds is not None:
            added = f", and usually {view.added} more" if view.added else ""
            self.display.say(
                f"{self.study.name}: {view.left} runs to train{added}; "
                f"{self.executor.capacity} at a time, about {duration(view.remaining_seconds)} "
                "by steps measured here just now"
            )

    def _train(self, wish: Wish) -> None:
        stopping = False
        try:
            while self.running or (self.needed and not stopping):
                if not stopping:
                    self._start()
                self._listen(stopping)
                if not stopping and (wish.to_stop or self.unwritable is not None):
                    stopping = True
                    for run_id in self.running:
                        self.executor.cancel(run_id, at_once=False)
                    self.display.say(
                        f"stopping: {len(self.running)} runs save a checkpoint; Ctrl-C again stops "
                        "at once"
                    )
                if self.display.is_due:
                    self.display.show(self._view())
        finally:
            for run_id in self.running:
                self.executor.cancel(run_id, at_once=True)

    def _start(self) -> None:
        """Fill the free slots with runs that nobody works on."""
        for run in self.needed:
            if len(self.running) == self.executor.capacity:
                return
            run_id = run.config.run_id
            folder = self.ledger.store.folder(run_id)
            if run_id in self.running or folder.is_claimed():
                continue
            verdict = tries(folder.attempts_made()).verdict
            if verdict is not None:
                self._give_up(run, verdict)
                continue
            self.attempts[run_id] = folder.attempts
            self.executor.start(run, folder.path)
            self.running[run_id] = run
            self.watchdog.heard(run_id)

    def _listen(self, stopping: bool) -> None:
        """Wait a moment for what runs tell, and deal with those that ended."""
        for run_id, message in self.executor.poll(TICK_SECONDS):
            run = self.running[run_id]
            self.watchdog.heard(run_id)
            match message:
                case Step(step, steps):
                    # The first message comes with the first step, wherever the run went on.
                    before = self.steps[run_id].step if run_id in self.steps else step - 1
                    self.meter.add((step - before) / steps * achieved_flops(run.config))
                    self.forecast.stepped(run, step / steps)
                    self.steps[run_id] = message
                case Warned(text):
                    self.display.say(f"{describe(run)}: warning: {text}")
                case Ended():
                    self._end(run_id, message, stopping)
                case Alive():
                    pass
        self.watchdog.look()
        for run_id in self.watchdog.hanging:
            self.executor.cancel(run_id, at_once=True)
            minutes = self.watchdog.limit_seconds / 60
            hung = f"hung: no sign of life for {minutes:.3g} minutes (--stall-minutes)"
            self._end(run_id, Ended("failed", hung), stopping)
        if time.monotonic() - self.looked > LOOK_SECONDS:
            self._look()

    def _look(self) -> None:
        """See what was recorded, here or by another process, and ask the grid again."""
        self.looked = time.monotonic()
        if self.ledger.refresh():
            self.needed = self.planner(self.study, self.ledger.records)
            self._count()
        self.elsewhere = {
            run.config.run_id
            for run in self.needed
            if run.config.run_id not in self.running
            and self.ledger.store.folder(run.config.run_id).is_claimed()
        }

    def _count(self) -> None:
        own = assign(self.study, self.ledger.records).all
        self.states = Counter(r.state for r in self.ledger.records if r.run_id in own)

    def _end(self, run_id: str, ended: Ended, stopping: bool) -> None:
        run = self.running.pop(run_id)
        self.watchdog.forget(run_id)
        self.steps.pop(run_id, None)
        self._look()
        record = self.ledger.get(run_id)
        self.forecast.ended(run, finished=record is not None and record.state == "finished")
        if record is not None:
            self._tell_record(run)
            return
        match ended.how:
            case "recorded":
                self._failed(run, "training ended without a record")
            case "failed" if not stopping:
                self._failed(run, ended.reason)
            case "unwritable":
                self.unwritable = ended.reason
            case _:
                # Asked to stop, or another process has the run: it stays needed.
                pass

    def _failed(self, run: PlannedRun, reason: str) -> None:
        """Note a failed attempt, and record the run as failed after the last one."""
        run_id = run.config.run_id
        folder = self.ledger.store.folder(run_id)
        try:
            made = note_failure(run.config, folder, reason, since=self.attempts[run_id])
        except RunClaimed:
            return
        except StorageError as error:
            self.unwritable = str(error)
            return
        found = tries(made)
        self.display.say(
            f"{describe(run)}: attempt {min(found.failures, FAILURES)} of {FAILURES} failed: "
            f"{reason}"
        )
        if found.verdict is not None:
            self._give_up(run, found.verdict)

    def _give_up(self, run: PlannedRun, reason: str) -> None:
        """Record a run as failed, so that its siblings and the report go on."""
        folder = self.ledger.store.folder(run.config.run_id)
        try:
            commit_failure(
                run.config,
                folder,
                reason,
                data_sha256=self.training.data_sha256,
                device=self.training.device,
            )
        except RunClaimed:
            return
        except StorageError as error:
            self.unwritable = str(error)
            return
        self.display.say(
            f"{describe(run)}: not tried again; see {folder.path / LOG}, remove {folder.path} to "
            "train it again"
        )
        self._look()
        self._tell_record(run)

    def _tell_record(self, run: PlannedRun) -> None:
        record = self.ledger.get(run.config.run_id)
        assert record is not None, "asked for runs with a record only"
        untold = sum(self.ledger.get(run_id) is not None for run_id in self.running)
        recorded = self.states.total()
        self.display.recorded(
            run, record, recorded - untold, recorded + len(self.needed) + self._added
        )

    @property
    def _added(self) -> int:
        """Runs that the grid will probably add to those that it knows of."""
        return max(0, self.forecast.runs - self.states.total() - len(self.needed))

    def _view(self) -> View:
        going = list(self.running.values())
        claimed = self.running.keys() | self.elsewhere
        waiting = [run for run in self.needed if run.config.run_id not in claimed]
        return View(
            finished=self.states["finished"],
            diverged=self.states["diverged"],
            failed=self.states["failed"],
            going=tuple(Going(run, self.steps.get(run.config.run_id)) for run in going),
            left=len(waiting),
            elsewhere=len(self.elsewhere),
            added=self._added,
            flops_per_second=self.meter.flops_per_second,
            remaining_seconds=self.forecast.seconds_left(going, waiting, self._added),
        )
