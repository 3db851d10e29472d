"""Keeps workers busy with what the grid asks for, and asks again whenever a run ends."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from isoflop.config import RunRecord, State, Study
from isoflop.notation import duration
from isoflop.planning import PlannedRun, parents
from isoflop.runs import Progress, RunClaimed, RunFolder
from isoflop.storage import StorageError
from isoflop.sweep.interrupts import Wish, stop_signals
from isoflop.sweep.ledger import Ledger
from isoflop.sweep.schedule.attempts import (
    FAILURES,
    commit_failure,
    failures,
    given_up,
    note_failure,
)
from isoflop.sweep.schedule.display import Display, describe
from isoflop.sweep.schedule.executor import LOG, Ended, Execution, Executor
from isoflop.sweep.schedule.forecast import Forecast, Going, View

Planner = Callable[[Study, Sequence[RunRecord]], list[PlannedRun]]
"""Says which runs a study needs that have no record yet."""

TICK_SECONDS = 0.25
LOOK_SECONDS = 1.0
"""Time between two looks at what other processes work on and have recorded."""
LONGEST_SILENCE_SECONDS = 2.0
"""Most of the time between two polls that counts as silence. More means that the scheduler itself
stood still, as a paused process or a sleeping machine does, and then heard nothing of anybody."""


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
    stale: tuple[str, ...] = ()
    """Why no grid was trained, a line for each variant whose learning rate is not to be kept."""


@dataclass(eq=False)
class Scheduler:
    """Trains what a study needs until it needs nothing more, or somebody asks to stop.

    The planner is asked at first and once a run has ended; of `execution` the device counts, and
    the silence after which a run counts as hanging; `data_sha256` is noted of one that cannot be
    trained.
    """

    ledger: Ledger
    planner: Planner
    executor: Executor
    forecast: Forecast
    display: Display
    execution: Execution
    data_sha256: str

    def __post_init__(self) -> None:
        self.going: dict[str, Going] = {}
        self.stopping = False
        shift, self.leave_at = self.execution.shift, math.inf
        if shift is not None and shift.working_seconds is not None:
            self.leave_at = shift.begun + shift.working_seconds
        self.unwritable: str | None = None
        self._ask_the_grid()
        self._look()
        self.polled = time.monotonic()

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
        seconds, left = self._view().remaining_seconds, len(self.needed) - len(self.elsewhere)
        if left and seconds is not None:
            added = f", and usually {self._added} more" if self._added else ""
            self.display.say(
                f"{self.ledger.study.name}: {left} runs to train{added}; {self.executor.capacity} "
                f"at a time, about {duration(seconds)} by steps measured here just now"
            )

    def _train(self, wish: Wish) -> None:
        try:
            while self.going or (self.needed and not self.stopping):
                if not self.stopping:
                    self._start()
                shift = self.execution.shift
                if not self.going and shift is not None and shift.until_idle:
                    return
                self._listen()
                over = time.monotonic() > self.leave_at
                if not self.stopping and (wish.to_stop or over or self.unwritable is not None):
                    self.stopping = True
                    for run_id in self.going:
                        self.executor.cancel(run_id, at_once=False)
                    told = f"{len(self.going)} runs save a checkpoint; Ctrl-C again stops at once"
                    here = self.going and self.execution.executor is None
                    self.display.say(f"stopping: {told}" if here else "stopping")
                if self.display.is_due:
                    self.display.show(self._view())
        finally:
            for run_id in self.going:
                self.executor.cancel(run_id, at_once=True)

    def _start(self) -> None:
        """Fill the free slots with runs that nobody works on."""
        for run in self.needed:
            if len(self.going) == self.executor.capacity:
                return
            run_id = run.config.run_id
            folder = self.ledger.store.folder(run_id)
            if run_id in self.going or folder.is_claimed() or self._waits(run_id, folder):
                continue
            if given_up(folder.attempts_made()) is not None:
                self._failed(Going(run))
                continue
            self.going[run_id] = Going(run, folder.attempts)
            self.executor.start(run, folder.path)

    def _waits(self, run_id: str, folder: RunFolder) -> bool:
        """Whether a run begins with steps of a shorter one that are still to be made.

        No time is lost by it, since its own first steps would take as long. Nothing waits for a run
        that has its record, whatever became of it; so the shortest of each stem never waits.
        """
        parent = self.parents.get(run_id)
        if parent is None or self.ledger.get(parent.run_id) or folder.checkpoints.exists():
            return False
        return not any(self.ledger.store.folder(parent.run_id).stable.glob("step-*"))

    def _listen(self) -> None:
        """Wait a moment for what runs tell, and deal with those that ended."""
        for run_id, message in self.executor.poll(TICK_SECONDS):
            one = self.going[run_id]
            one.silent_seconds = 0.0
            match message:
                case Progress():
                    one.stepped(message, time.monotonic())
                case str():
                    self.display.say(f"{describe(one.run)}: warning: {message}")
                case Ended():
                    self._end(one, message)
                case None:
                    pass
                case _:
                    assert_never(message)
        now = time.monotonic()
        passed, self.polled = min(now - self.polled, LONGEST_SILENCE_SECONDS), now
        limit = self.execution.stall_seconds
        for run_id, one in list(self.going.items()):
            one.silent_seconds += passed
            if one.silent_seconds > limit:
                self.executor.cancel(run_id, at_once=True)
                hung = f"hung: no sign of life for {limit / 60:.3g} minutes (--stall-minutes)"
                self._end(one, Ended("failed", hung))
        if now - self.looked > LOOK_SECONDS:
            self._look()

    def _look(self) -> None:
        """See what was recorded, here or by another process, and ask the grid again."""
        self.looked = time.monotonic()
        if self.ledger.refresh():
            self._ask_the_grid()
        self.elsewhere = {
            run.config.run_id
            for run in self.needed
            if run.config.run_id not in self.going
            and self.ledger.store.folder(run.config.run_id).is_claimed()
        }

    def _ask_the_grid(self) -> None:
        self.needed = self.planner(self.ledger.study, self.ledger.records)
        # The longest first, so that few workers wait for the last ones, or the shortest, so that
        # all that begin with them find their steps; of equal ones those of the first grids, so that
        # no variant waits for what others add.
        sign = 1 if self.execution.shares_up_to else -1
        self.needed.sort(key=lambda run: (sign * run.budget_flops, run.purpose != "initial"))
        own = self.ledger.own
        self.states: Counter[State] = Counter(record.state for record in own)
        runs = [*(one.config for one in own), *(one.config for one in self.needed)]
        self.parents = parents(runs) if self.execution.shares_up_to else {}
        self.forecast.shared = {run_id: one.stable_steps for run_id, one in self.parents.items()}

    def _end(self, one: Going, ended: Ended) -> None:
        run_id = one.run.config.run_id
        del self.going[run_id]
        self._look()
        record = self.ledger.get(run_id)
        if record is not None:
            if record.state == "finished":
                self.forecast.finished(one, time.monotonic())
            self._tell_record(one.run)
            return
        match ended.how:
            case "recorded":
                self._failed(one, "training ended without a record")
            case "failed":
                if not self.stopping:
                    self._failed(one, ended.reason)
            case "unwritable":
                self.unwritable = ended.reason
            case "interrupted" | "claimed":
                pass  # Asked to stop, or another process has the run: it stays needed.
            case _:
                assert_never(ended.how)

    def _failed(self, one: Going, reason: str | None = None) -> None:
        """Note a failed attempt, if there was one, and record the run as failed after the last one.

        So its siblings and the report go on.
        """
        config = one.run.config
        folder = self.ledger.store.folder(config.run_id)
        try:
            made = folder.attempts_made()
            if reason is not None:
                made = note_failure(config, folder, reason, since=one.attempts)
                number = min(len(failures(made)), FAILURES)
                self.display.say(
                    f"{describe(one.run)}: attempt {number} of {FAILURES} failed: {reason}"
                )
            if (why := given_up(made)) is None:
                return
            device = self.execution.device
            commit_failure(config, folder, why, data_sha256=self.data_sha256, device=device)
        except RunClaimed:
            return
        except StorageError as error:
            self.unwritable = str(error)
            return
        self.display.say(
            f"{describe(one.run)}: not tried again; see {folder.path / LOG}, remove {folder.path} "
            "to train it again"
        )
        self._look()
        self._tell_record(one.run)

    def _tell_record(self, run: PlannedRun) -> None:
        record = self.ledger.get(run.config.run_id)
        assert record is not None, "asked for runs with a record only"
        untold = sum(self.ledger.get(run_id) is not None for run_id in self.going)
        self.display.recorded(run, record, self.states.total() - untold, self._expected)

    @property
    def _added(self) -> int:
        """Runs that the grid will probably add to those that it knows of."""
        return max(0, self.forecast.runs - self.states.total() - len(self.needed))

    @property
    def _expected(self) -> int:
        return self.states.total() + len(self.needed) + self._added

    def _view(self) -> View:
        going = tuple(self.going.values())
        claimed = self.going.keys() | self.elsewhere
        waiting = [run for run in self.needed if run.config.run_id not in claimed]
        return View(
            done=self.states.total(),
            expected=self._expected,
            going=going,
            elsewhere=len(self.elsewhere),
            remaining_seconds=self.forecast.seconds_left(going, waiting, self._added),
        )
