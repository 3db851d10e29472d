"""How a study that is trained goes, and how long it will take.

By steps measured before it starts, then by what ran.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from isoflop.config import RunConfig, decisions
from isoflop.costs import forward_flops, parameters
from isoflop.planning import PlannedRun, achieved_flops, makespan
from isoflop.sweep.schedule.executor import Step

START_SECONDS = 1.0
"""What a run takes beside its steps and evaluations: its process, its model, its folder."""
BELIEF_SECONDS = 10.0
"""Work that counts as if it had taken what the measured steps promise, beside what really ran."""
EVALUATED_SPLITS = 2
WINDOW_SECONDS = 120.0
"""Throughput is measured over this time: long enough for evaluation and compiling to count."""
UNMEASURED = 1e9
"""FLOP/s to set out from where none were measured; what ran corrects it before it is told."""


@dataclass(frozen=True)
class Rate:
    """Measured speed of one run."""

    run: PlannedRun
    flops_per_second: float


@dataclass
class _Stretch:
    """What a run under way has done here: from its first message to its last one."""

    from_share: float
    from_second: float
    to_share: float
    to_second: float


class Forecast:
    """Expects the time of runs by measured speeds, and corrects these by what ran.

    What ran, over what was expected of it, is the factor that all that is left is multiplied by.

    Args:
        workers: runs trained at a time.
        rates: measured speeds of some runs while `workers` of them go; a run that is not among them
            has the speed of the one nearest in size, of its own variant if there is one. Where
            there are none, nothing is expected before something ran.
        runs: that the study will probably have, those included that the grid usually adds.
        added_flops: mean FLOPs of a run that the grid usually adds.
        held_out_tokens: tokens of a held-out split, which bounds what is evaluated.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        workers: int,
        rates: Sequence[Rate] = (),
        *,
        runs: int = 0,
        added_flops: float = 0.0,
        held_out_tokens: float = math.inf,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.runs = runs
        self._workers = workers
        self._rates = rates
        self._added_flops = added_flops
        self._held_out_tokens = held_out_tokens
        self._clock = clock
        self._stretches: dict[str, _Stretch] = {}
        self._took, self._expected = (BELIEF_SECONDS, BELIEF_SECONDS) if rates else (0.0, 0.0)

    def stepped(self, run: PlannedRun, share: float) -> None:
        """Note that a run under way has done a share of its steps."""
        now = self._clock()
        stretch = self._stretches.setdefault(run.config.run_id, _Stretch(share, now, share, now))
        stretch.to_share, stretch.to_second = share, now

    def ended(self, run: PlannedRun, *, finished: bool) -> None:
        """Note that a run is no longer under way; what it took counts if it went to its end."""
        stretch = self._stretches.pop(run.config.run_id, None)
        if finished and stretch is not None:
            self._took += self._clock() - stretch.from_second
            share = 1 - stretch.from_share
            self._expected += share * self._steps(run) + self._evaluations(run)

    def seconds_left(
        self, going: Sequence[PlannedRun], waiting: Sequence[PlannedRun], added: int
    ) -> float | None:
        """Return the time until all is done; None where nothing tells.

        That is where nothing was measured and nothing ran, or others have all the runs.

        Args:
            going: runs under way here.
            waiting: runs that are started when a worker is free, in this order.
            added: runs that the grid will probably add.
        """
        took, expected = self._took, self._expected
        for run in going:
            stretch = self._stretches.get(run.config.run_id)
            if stretch is not None:
                took += stretch.to_second - stretch.from_second
                expected += (stretch.to_share - stretch.from_share) * self._steps(run)
        if not expected or not (going or waiting):
            return None
        works = [self._rest(run) for run in going]
        works += [self._whole(run) for run in waiting]
        works += [self._added()] * added
        return makespan(works, self._workers) * took / expected

    def _rest(self, run: PlannedRun) -> float:
        stretch = self._stretches.get(run.config.run_id)
        if stretch is None:
            return self._whole(run)
        return (1 - stretch.to_share) * self._steps(run) + self._evaluations(run)

    def _whole(self, run: PlannedRun) -> float:
        return START_SECONDS + self._steps(run) + self._evaluations(run)

    def _steps(self, run: PlannedRun) -> float:
        return achieved_flops(run.config) / self._speed(run)

    def _evaluations(self, run: PlannedRun) -> float:
        return _evaluation_flops(run.config, self._held_out_tokens) / self._speed(run)

    def _added(self) -> float:
        if not self._rates:
            return self._added_flops / UNMEASURED
        seconds_per_flop = [1 / rate.flops_per_second for rate in self._rates]
        return START_SECONDS + self._added_flops * sum(seconds_per_flop) / len(seconds_per_flop)

    def _speed(self, run: PlannedRun) -> float:
        if not self._rates:
            return UNMEASURED
        kin = [rate for rate in self._rates if rate.run.variant == run.variant] or self._rates
        size = _log_size(run.config)
        return min(kin, key=lambda rate: abs(_log_size(rate.run.config) - size)).flops_per_second


def _evaluation_flops(config: RunConfig, held_out_tokens: float) -> float:
    """Return the FLOPs of the evaluations at a run's end."""
    per_token = forward_flops(config.model, config.data.sequence_length, config.convention)
    passes = EVALUATED_SPLITS * len(decisions(config.model.depth))
    return passes * min(config.evaluation_tokens, held_out_tokens) * per_token.per_token


def _log_size(config: RunConfig) -> float:
    return math.log(parameters(config.model).total)


class Meter:
    """Measures FLOP/s over the last two minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._spent: deque[tuple[float, float]] = deque()

    def add(self, flops: float) -> None:
        """Count FLOPs that were spent since."""
        self._spent.append((self._clock(), flops))

    @property
    def flops_per_second(self) -> float:
        """Training FLOP/s of all runs together; 0 while nothing was trained."""
        now = self._clock()
        while self._spent and self._spent[0][0] < now - WINDOW_SECONDS:
            self._spent.popleft()
        elapsed = min(WINDOW_SECONDS, now - self._started)
        return sum(flops for _, flops in self._spent) / elapsed if elapsed > 0 else 0.0


@dataclass(frozen=True)
class Going:
    """A run under way."""

    run: PlannedRun
    step: Step | None
    """None until its first step is done."""


@dataclass(frozen=True)
class View:
    """What there is to see of a study that is being trained."""

    finished: int
    diverged: int
    failed: int
    going: tuple[Going, ...]
    left: int
    """Runs planned so far that nobody works on."""
    elsewhere: int
    """Runs that another process works on."""
    added: int
    """Runs that the grid will probably add to those planned so far."""
    flops_per_second: float
    remaining_seconds: float | None
    """Time until all these are done; None while nothing was measured."""

    @property
    def done(self) -> int:
        """Runs that have a record."""
        return self.finished + self.diverged + self.failed

    @property
    def expected(self) -> int:
        """Runs that the study will probably have."""
        return self.done + len(self.going) + self.left + self.elsewhere + self.added
