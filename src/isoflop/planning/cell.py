"""One variant at one budget: which sizes it has, where its minimum lies, what it still needs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Literal

from isoflop.config import Frozen, ModelConfig, RunConfig, RunRecord, Study, Variant
from isoflop.planning.checks import checks, validation_loss
from isoflop.planning.recipe import affordable, ladder, resolve

Purpose = Literal["initial", "added", "replicate", "matched", "trial", "rate", "order"]
"""Why a run is trained: first sizes, sizes beyond a minimum's side, more seeds, matched shapes,
a trial of the recipe, another learning rate or another data order at the best size."""


class PlannedRun(Frozen):
    """A run that a study needs, and why."""

    variant: str
    budget_flops: float
    config: RunConfig
    purpose: Purpose


class Cell:
    """What the records say of one variant at one budget.

    Everything follows from the study and the records alone, so that any process that reads the
    same folders decides the same. Each answer only ever adds runs, of which there are finitely
    many; so asking again after every run ends.
    """

    def __init__(
        self,
        study: Study,
        variant: Variant,
        budget_flops: float,
        records: Mapping[str, RunRecord],
    ) -> None:
        self.study = study
        self.variant = variant
        self.budget_flops = budget_flops
        self._records = records
        self.ladder = ladder(study, variant, budget_flops)
        self._runs: dict[tuple[int, int], tuple[RunConfig, str]] = {}

    @cached_property
    def initial(self) -> range:
        """Rungs of the first sizes."""
        return self.ladder.initial

    @cached_property
    def rungs(self) -> range:
        """Rungs of the first sizes and of those that were added to them so far."""
        first, stop = self.initial.start, self.initial.stop
        room = self.study.grid.added_at_most
        # Sizes beyond may be at hand from other studies; those that this one may add are its own.
        while room and self._started(first - 1):
            first, room = first - 1, room - 1
        while room and self._started(stop):
            stop, room = stop + 1, room - 1
        return range(first, stop)

    @cached_property
    def mean_losses(self) -> dict[int, float]:
        """Mean validation loss over the seeds that finished, by rung; rungs without are left out.

        Raises:
            ValueError: If a finished record lacks the validation loss it is judged by.
        """
        means = {}
        for rung in self.rungs:
            losses = [validation_loss(record) for record in self.finished(rung)]
            if losses:
                means[rung] = statistics.fmean(losses)
        return means

    def finished(self, rung: int) -> list[RunRecord]:
        """Return the records of a rung's runs that finished, of every seed."""
        records = [self._record(rung, seed) for seed in self.study.seeds]
        return [record for record in records if record and record.state == "finished"]

    @cached_property
    def minimum(self) -> int | None:
        """Rung of the lowest mean loss; None while nothing has finished."""
        return min(self.mean_losses, key=self.mean_losses.__getitem__, default=None)

    @property
    def below(self) -> int:
        """Usable sizes smaller than the minimum."""
        return sum(
            1 for rung in self.mean_losses if self.minimum is not None and rung < self.minimum
        )

    @property
    def above(self) -> int:
        """Usable sizes larger than the minimum."""
        return sum(
            1 for rung in self.mean_losses if self.minimum is not None and rung > self.minimum
        )

    @property
    def bracketed(self) -> bool:
        """Whether the minimum has `grid.margin` usable sizes on either side."""
        return min(self.below, self.above) >= self.study.grid.margin

    def model(self, rung: int) -> ModelConfig:
        """Return the shape of one of the cell's rungs."""
        model = self.ladder.rung(rung)
        assert model is not None, "a cell's rungs exist"
        return model

    def needed(self) -> list[PlannedRun]:
        """Return the runs without a record that the cell needs now; none once it is settled.

        First the sizes at hand, then sizes beyond a minimum near the edge, then further seeds at
        the minimum and its neighbours, then other learning rates and data orders at the minimum.
        Each waits for the one before, since it depends on it.
        """
        everywhere = self.study.replicate == "all"
        started = self._missing(
            self.rungs, self.study.seeds if everywhere else self.study.seeds[:1]
        )
        if started or self.minimum is None:
            return started
        added = self._beyond()
        if added:
            return self._missing(added, self.study.seeds if everywhere else self.study.seeds[:1])
        return self._missing(self._near_minimum(), self.study.seeds) or self._checks()

    def _checks(self) -> list[PlannedRun]:
        """Return the runs beside the minimum that no fit uses: other rates, other data orders."""
        return [
            PlannedRun(
                variant=self.variant.name,
                budget_flops=self.budget_flops,
                config=config,
                purpose=purpose,
            )
            for purpose, config in checks(
                self.study, self.variant, self._resolved_minimum, self._records
            )
            if config.run_id not in self._records
        ]

    def _resolved_minimum(self, variant: Variant, seed: int) -> RunConfig:
        assert self.minimum is not None
        return resolve(self.study, variant, self.budget_flops, self.model(self.minimum), seed)

    def _beyond(self) -> list[int]:
        """Return rungs that continue the ladder on the short sides of the minimum, near ones first.

        Sizes whose runs diverged or failed do not count as sides. The ladder ends where the
        family or the grid's bounds do, or where the budget no longer buys enough steps.
        """
        margin, grid = self.study.grid.margin, self.study.grid
        room = grid.added_at_most - (len(self.rungs) - len(self.initial))
        lower = range(self.rungs.start - 1, self.rungs.start - 1 - max(0, margin - self.below), -1)
        upper = range(self.rungs.stop, self.rungs.stop + max(0, margin - self.above))
        wanted = [
            (distance, rung)
            for side in (lower, upper)
            for distance, rung in enumerate(side)
            if self._exists(rung)
        ]
        return [rung for _, rung in sorted(wanted)][: max(0, room)]

    def _near_minimum(self) -> list[int]:
        """Return the rungs of the minimum and of the usable sizes next to it."""
        usable = sorted(self.mean_losses)
        assert self.minimum is not None
        at = usable.index(self.minimum)
        return usable[max(0, at - 1) : at + 2]

    def _missing(self, rungs: Iterable[int], seeds: Iterable[int]) -> list[PlannedRun]:
        return [
            PlannedRun(
                variant=self.variant.name,
                budget_flops=self.budget_flops,
                config=self._run(rung, seed),
                purpose=self._purpose(rung, seed),
            )
            for seed in seeds
            for rung in rungs
            if self._record(rung, seed) is None
        ]

    def _purpose(self, rung: int, seed: int) -> Purpose:
        if seed != self.study.seeds[0]:
            return "replicate"
        return "initial" if rung in self.initial else "added"

    def _exists(self, rung: int) -> bool:
        model = self.ladder.rung(rung)
        return model is not None and affordable(self.study, self.budget_flops, model)

    def _started(self, rung: int) -> bool:
        return self._exists(rung) and self._record(rung, self.study.seeds[0]) is not None

    def _record(self, rung: int, seed: int) -> RunRecord | None:
        return self._records.get(self._named_run(rung, seed)[1])

    def _run(self, rung: int, seed: int) -> RunConfig:
        return self._named_run(rung, seed)[0]

    def _named_run(self, rung: int, seed: int) -> tuple[RunConfig, str]:
        """Return a run and its id, which is hashed once: the cell asks for it again and again."""
        if (rung, seed) not in self._runs:
            run = resolve(self.study, self.variant, self.budget_flops, self.model(rung), seed)
            self._runs[rung, seed] = run, run.run_id
        return self._runs[rung, seed]
