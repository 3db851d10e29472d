"""One variant at one budget: which sizes it has, where its minimum lies, what it still needs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, takewhile
from typing import Literal

from isoflop.config import ModelConfig, RunConfig, RunRecord, Study, Variant
from isoflop.costs import parameters
from isoflop.planning.checks import checks, validation_loss
from isoflop.planning.recipe import affordable, ladder, resolve

Purpose = Literal["initial", "added", "replicate", "matched", "trial", "rate", "order"]
"""Why a run is trained: first sizes, sizes beyond a minimum's side, more seeds, matched shapes,
a trial of the recipe, another learning rate or another data order at the best size."""


@dataclass(frozen=True)
class PlannedRun:
    """A run that a study needs, and why."""

    variant: str
    config: RunConfig
    purpose: Purpose

    @property
    def budget_flops(self) -> float:
        """Nominal training FLOPs."""
        assert self.config.budget_flops is not None, "runs of a study have a budget"
        return self.config.budget_flops


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
        self.initial = self.ladder.initial
        """Rungs of the first sizes."""
        self._runs: dict[tuple[int, int], tuple[RunConfig, str]] = {}

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
        losses = {r: [validation_loss(record) for record in self.finished(r)] for r in self.rungs}
        return {rung: statistics.fmean(found) for rung, found in losses.items() if found}

    def finished(self, rung: int) -> list[RunRecord]:
        """Return the records of a rung's runs that finished, of every seed."""
        records = [self._record(rung, seed) for seed in self.study.seeds]
        return [record for record in records if record and record.state == "finished"]

    def finished_of_all(self) -> list[RunRecord]:
        """Return the records that finished of all rungs and seeds, those that were added too."""
        seeds = (*self.study.seeds, *self.study.added_seeds)
        found = [self._record(rung, seed) for rung in self.rungs for seed in seeds]
        return [record for record in found if record and record.state == "finished"]

    @cached_property
    def minimum(self) -> int | None:
        """Rung of the lowest mean loss; None while nothing has finished."""
        return min(self.mean_losses, key=self.mean_losses.__getitem__, default=None)

    @property
    def below(self) -> int:
        """Usable sizes smaller than the minimum."""
        return 0 if self.minimum is None else sum(r < self.minimum for r in self.mean_losses)

    @property
    def above(self) -> int:
        """Usable sizes larger than the minimum."""
        return 0 if self.minimum is None else sum(r > self.minimum for r in self.mean_losses)

    @property
    def bracketed(self) -> bool:
        """Whether the minimum has `grid.margin` usable sizes on either side, or is the only one."""
        only = self.study.start is not None and self.minimum is not None
        return only or min(self.below, self.above) >= self.study.grid.margin

    @property
    def minimum_parameters(self) -> int | None:
        """Total parameters of the best size so far; None while nothing has finished."""
        return None if self.minimum is None else parameters(self.model(self.minimum)).total

    def model(self, rung: int) -> ModelConfig:
        """Return the shape of one of the cell's rungs."""
        model = self.ladder.rung(rung)
        assert model is not None, "a cell's rungs exist"
        return model

    @property
    def middle(self) -> ModelConfig:
        """The middle one of the first sizes, where the optimum is expected."""
        return self.model(self.initial[len(self.initial) // 2])

    def needed(self) -> list[PlannedRun]:
        """Return the runs without a record that the cell needs now; none once it is settled.

        First the sizes at hand, then sizes beyond a minimum near the edge, then further seeds at
        the minimum and its neighbours, then other learning rates and data orders at the minimum.
        Each waits for the one before, since it depends on it.
        """
        if declared := self._declared():
            return declared
        if self.minimum is None:
            return []
        best = self.model(self.minimum)
        return [
            PlannedRun(self.variant.name, config, purpose)
            for purpose, config in checks(
                self.study,
                self.variant,
                lambda variant, seed: resolve(self.study, variant, self.budget_flops, best, seed),
                self._records,
            )
            if config.run_id not in self._records
        ]

    def further(self, seed: int) -> list[PlannedRun] | None:
        """Return the runs without a record of a further seed near the minimum.

        None until the declared seeds are done, which alone decide where that is.
        """
        if self._declared() or self.minimum is None:
            return None
        return self._missing(self._near_minimum(), [seed])

    def _declared(self) -> list[PlannedRun]:
        """Return the runs without a record of sizes and of the seeds declared."""
        seeds = self.study.seeds
        first = seeds if self.study.replicate == "all" else seeds[:1]
        started = self._missing(self.rungs, first)
        if started or self.minimum is None:
            return started
        if added := self._beyond():
            return self._missing(added, first)
        return self._missing(self._near_minimum(), seeds)

    def _near_minimum(self) -> list[int]:
        """Return the rungs of the minimum and its neighbours."""
        assert self.minimum is not None
        usable = sorted(self.mean_losses)
        at = usable.index(self.minimum)
        return usable[max(0, at - 1) : at + 2]

    def _beyond(self) -> list[int]:
        """Return rungs that continue the ladder on the short sides of the minimum, near ones first.

        Sizes whose runs diverged or failed do not count as sides. The ladder ends where the
        family or the grid's bounds do, or at the first size that whole steps miss the budget of:
        beyond it none is counted.
        """
        grid = self.study.grid
        room = grid.added_at_most - (len(self.rungs) - len(self.initial))
        below = (self.rungs.start - 1 - far for far in range(grid.margin - self.below))
        above = (self.rungs.stop + far for far in range(grid.margin - self.above))
        wanted = [enumerate(takewhile(self._exists, side)) for side in (below, above)]
        return [rung for _, rung in sorted(chain(*wanted))][: max(0, room)]

    def _missing(self, rungs: Iterable[int], seeds: Iterable[int]) -> list[PlannedRun]:
        return [
            PlannedRun(self.variant.name, self._run(rung, seed)[0], self._purpose(rung, seed))
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
        if model is None:
            return False
        return affordable(self.study, self.variant, self.budget_flops, model)

    def _started(self, rung: int) -> bool:
        return self._exists(rung) and self._record(rung, self.study.seeds[0]) is not None

    def _record(self, rung: int, seed: int) -> RunRecord | None:
        return self._records.get(self._run(rung, seed)[1])

    def _run(self, rung: int, seed: int) -> tuple[RunConfig, str]:
        """Return a run and its id, which is hashed once: the cell asks for it again and again."""
        if (rung, seed) not in self._runs:
            run = resolve(self.study, self.variant, self.budget_flops, self.model(rung), seed)
            self._runs[rung, seed] = run, run.run_id
        return self._runs[rung, seed]


def cells(study: Study, records: Iterable[RunRecord] = ()) -> list[Cell]:
    """Return what records say of each variant at each budget, by budget; none of named sizes."""
    by_id = {record.run_id: record for record in records}
    return [
        Cell(study, variant, budget, by_id)
        for budget in study.budgets_flops
        for variant in study.variants
    ]
