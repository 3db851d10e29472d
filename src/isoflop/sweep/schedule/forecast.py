"""How a study that is trained goes, and how long it will take.

By steps measured before it starts, then by what ran.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isoflop.costs import forward_flops, parameters
from isoflop.planning import PlannedRun, achieved_flops, makespan
from isoflop.runs import Progress

START_SECONDS = 1.0
"""What a run takes beside its steps and evaluations: its process, its model, its folder."""
BELIEF_SECONDS = 10.0
"""Work that counts as if it had taken what the measured steps promise, beside what really ran."""
EVALUATED_SPLITS = 2
UNMEASURED = 1e9
"""FLOP/s to set out from where none were measured; what ran corrects it before it is told."""


@dataclass
class Going:
    """A run under way here."""

    run: PlannedRun
    attempts: int = 0
    """There were before this one."""
    silent_seconds: float = 0.0
    """Since its last sign of life, as long as somebody listened."""
    progress: Progress | None = None
    """None until its first step is done."""
    from_share: float = 0.0
    """Of the steps, done when it was heard of first; wherever it went on from."""
    from_second: float = 0.0
    to_second: float = 0.0
    """When it was heard of first and last."""

    @property
    def share(self) -> float | None:
        """Of the steps that are done; None until its first step."""
        return None if self.progress is None else self.progress.step / self.progress.steps

    def stepped(self, progress: Progress, now: float) -> None:
        """Note where it stands; the first message comes with the first step it makes."""
        if self.progress is None:
            self.from_share, self.from_second = progress.step / progress.steps, now
        self.progress, self.to_second = progress, now


class Forecast:
    """Expects the time of runs by measured speeds, and corrects these by what ran.

    What ran, over what was expected of it, is the factor that all that is left is multiplied by.

    Args:
        workers: runs trained at a time.
        rates: measured FLOP/s of some runs while `workers` of them go; a run that is not among them
            has the speed of the one nearest in size, of its own variant if there is one. Where
            there are none, nothing is expected before something ran.
        runs: that the study will probably have, those included that the grid usually adds.
        added_flops: mean FLOPs of a run that the grid usually adds.
        held_out_tokens: tokens of a held-out split, which bounds what is evaluated.
    """

    def __init__(
        self,
        workers: int,
        rates: Sequence[tuple[PlannedRun, float]] = (),
        *,
        runs: int = 0,
        added_flops: float = 0.0,
        held_out_tokens: float = math.inf,
    ) -> None:
        self.runs = runs
        self.shared: Mapping[str, int] = {}
        """First steps of runs that others make, by run id."""
        self._workers = workers
        self._rates = rates
        self._added_flops = added_flops
        self._held_out_tokens = held_out_tokens
        self._took = self._expected = BELIEF_SECONDS if rates else 0.0

    def finished(self, one: Going, now: float) -> None:
        """Note that a run went to its end."""
        if one.progress is not None:
            self._took += now - one.from_second
            self._expected += self._work(one.run, one.from_share)

    def seconds_left(
        self, going: Sequence[Going], waiting: Sequence[PlannedRun], added: int
    ) -> float | None:
        """Return the time until all is done, with the runs that the grid will probably add.

        None where nothing was measured and nothing ran, or others have all the runs.
        """
        works = [self._work(one.run, one.share) for one in going]
        took, expected = self._took, self._expected
        for one, left in zip(going, works, strict=True):
            if one.progress is not None:
                took += one.to_second - one.from_second
                expected += self._work(one.run, one.from_share) - left
        if not expected or not (going or waiting):
            return None
        works += [self._work(run) for run in waiting]
        works += [self._added()] * added
        return makespan(works, self._workers) * took / expected

    def _work(self, run: PlannedRun, done: float | None = None) -> float:
        """Return the seconds from a share of a run's steps to its end; None is its start."""
        config = run.config
        per_token = forward_flops(config.model, config.data.sequence_length, config.convention)
        passes = EVALUATED_SPLITS * len(config.model.decisions)
        evaluated = passes * min(config.evaluation_tokens, self._held_out_tokens)
        begun = self.shared.get(config.run_id, 0) / config.steps if done is None else done
        flops = (1 - begun) * achieved_flops(config) + evaluated * per_token.per_token
        return flops / self._speed(run) + (START_SECONDS if done is None else 0.0)

    def _added(self) -> float:
        if not self._rates:
            return self._added_flops / UNMEASURED
        seconds_per_flop = sum(1 / speed for _, speed in self._rates) / len(self._rates)
        return START_SECONDS + self._added_flops * seconds_per_flop

    def _speed(self, run: PlannedRun) -> float:
        def distance(other: PlannedRun) -> tuple[bool, float]:
            sizes = [parameters(one.config.model).total for one in (other, run)]
            return other.variant != run.variant, abs(math.log(sizes[0] / sizes[1]))

        return min(self._rates, key=lambda rate: distance(rate[0]), default=(run, UNMEASURED))[1]


@dataclass(frozen=True)
class View:
    """What there is to see of a study that is being trained."""

    done: int
    """Runs that have a record."""
    expected: int
    """All runs, those included that the grid will probably add."""
    going: tuple[Going, ...]
    elsewhere: int
    """Runs that another process works on."""
    remaining_seconds: float | None
    """Time until all is done; None while nothing was measured."""
