"""Other learning rates than a variant's own, tried before its grid and judged on validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isoflop.config import STALE_NATS, RunConfig, RunRecord, Study, Variant
from isoflop.planning.cell import Cell, PlannedRun
from isoflop.planning.checks import judged_loss
from isoflop.planning.recipe import resolve
from isoflop.planning.scaling import scaled_run

TRIED = (0.5, 2.0)
"""Multiples of a variant's own rate. Doubling makes no rounding errors, so that a rate found is
the one that is written."""


@dataclass(frozen=True)
class FirstCheck:
    """A variant's model at several learning rates, before the grid is trained."""

    variant: str
    own: float
    """The variant's learning rate."""
    losses: Mapping[float, float]
    """Validation loss by rate, ascending; infinity where a run diverged or failed."""
    missing: tuple[PlannedRun, ...]
    """Runs without a record, which the check waits for."""

    @property
    def words(self) -> str:
        """The losses, with a star at the variant's own rate; none where a run did not finish."""
        told = {rate: f"{loss:.4f}".replace("inf", "none") for rate, loss in self.losses.items()}
        return ", ".join(f"{rate:g}{'*' * (rate == self.own)}: {told[rate]}" for rate in told)

    @property
    def stale(self) -> str | None:
        """What was found and what to write, where another rate is clearly better."""
        best = min(self.losses, key=self.losses.__getitem__, default=self.own)
        if self.missing or self.losses[self.own] - self.losses[best] <= STALE_NATS:
            return None
        told = f"write learning_rate = {best!r} in the variant, or in [recipe] for all"
        if math.isinf(self.losses[best]):
            told = "none can be trained with: give another learning_rate"
        return (
            f"stale learning rate of {self.variant}, losses {self.words}: {told}; to go on "
            "regardless, check_first = false in [recipe]"
        )


def first_checks(study: Study, records: Sequence[RunRecord]) -> list[FirstCheck]:
    """Return what is known of each variant's learning rate before the grid; none if not asked for.

    Raises:
        ValueError: the model cannot be trained, or a finished record lacks its validation loss.
    """
    by_id = {record.run_id: record for record in records}
    found = []
    for variant in study.variants if study.checks_first else ():
        runs = {run.config.run_id: run for run in first_check_runs(study, variant)}
        rates = {run_id: run.config.recipe.learning_rate for run_id, run in runs.items()}
        losses = {rates[one]: judged_loss(by_id[one]) for one in runs if one in by_id}
        missing = tuple(run for run_id, run in runs.items() if run_id not in by_id)
        own = next(iter(rates.values()))
        found.append(FirstCheck(variant.name, own, dict(sorted(losses.items())), missing))
    return found


def first_check_runs(study: Study, variant: Variant) -> list[PlannedRun]:
    """Return a variant's run at its own learning rate, one of the grid, and those at others.

    They have the middle one of its first sizes at the first budget, or the checked model of a
    scaling study, and the first seed.
    """
    seed = study.seeds[0]

    def resolved(taken: Variant) -> RunConfig:
        if study.scaling is not None:
            return scaled_run(study, study.scaling.models[study.scaling.checked], taken, seed)
        cell = Cell(study, variant, study.budgets_flops[0], {})
        return resolve(study, taken, cell.budget_flops, cell.middle, seed)

    own = study.learning_rates()[variant.name]
    others = [variant.model_copy(update={"learning_rate": own * one}) for one in TRIED]
    return [
        PlannedRun(variant.name, resolved(variant), "initial"),
        *(PlannedRun(variant.name, resolved(one), "rate") for one in others),
    ]
