"""What a report is made from: the records of a study, and what else is known of its runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from pydantic import BaseModel, ConfigDict, Field

from isoflop.config import PrecisionChoice, RunRecord, TaskScores
from isoflop.fit.search import SearchResult
from isoflop.report.registration import Registration
from isoflop.report.routed import RoutedModel

RUNS = "runs"
"""File name, without its ending, of the table of every run."""

SAME_FLOPS = 0.01
"""Relative difference of FLOPs per step below which a row of speeds measures the same step."""


class BenchRow(BaseModel):
    """One row of `isoflop bench train --json`; what else a row holds is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    variant: str
    parameters: float = Field(gt=0)
    flops_per_step: float = Field(gt=0)
    steps_per_second: float = Field(gt=0)
    achieved_flops: float | None = None
    peak_flops: float | None = None


@dataclass(frozen=True)
class LeftOut:
    """A run that no figure shows, and why."""

    variant: str
    budget_flops: float
    size: str
    seed: int
    state: str
    reason: str


@dataclass(frozen=True)
class RecipeSearch:
    """How many trials of a recipe were trained."""

    declared: Mapping[str, int]
    """Trials that the study names, by variant."""
    finished: Mapping[str, int]
    """How many of these have a loss."""
    further_runs: int = 0
    """Recorded runs of trials that the study, as it is now, does not name."""
    found: SearchResult | None = None
    """What was found of settings, where they are searched."""


@dataclass(frozen=True)
class Evidence:
    """The records of a study, and what else a report says of its runs."""

    records: Sequence[RunRecord] = ()
    """Outcomes of runs; diverged and failed ones are listed, not fitted."""
    variant_of: Mapping[str, str] = field(default_factory=dict)
    """Name of the variant of each run id."""
    off_ladder: Collection[str] = ()
    """Run ids of shapes that are not of their variant's own ladder."""
    checks: Mapping[str, str] = field(default_factory=dict)
    """Name of the variant of each run that checks another one; no fit uses it."""
    checked_first: Mapping[str, str] = field(default_factory=dict)
    """What other learning rates gave before the grid, in words, by variant."""
    missing: Sequence[LeftOut] = ()
    """Runs that have no record yet."""
    speeds: Sequence[BenchRow] = ()
    """Measured ones; without them nothing is said about wall-clock."""
    registered: Sequence[Registration] = ()
    """Predictions that were written down before their budget was trained."""
    search: RecipeSearch | None = None
    """How many trials the recipe was chosen from; None where that is not known."""
    routed: RoutedModel | None = None
    """The routed model to look into."""
    train_tokens: int | None = None
    """Size of the training split; None where the corpus of these runs is not at hand."""
    precision: PrecisionChoice | None = None
    """What the precision was chosen by; None where the study's file names it."""
    tasks: Mapping[str, TaskScores] = field(default_factory=dict)
    """Scores in tasks of the runs that have some, by run id."""
    command: str | None = None
    """What makes the page again; None where it is the plain command."""

    def steps_per_second(
        self, variant: str, parameters: float, flops_per_step: float
    ) -> float | None:
        """Return the median measured speed of a model and step; None when none was measured."""
        found = [
            row.steps_per_second
            for row in self.speeds
            if row.variant == variant
            and row.parameters == parameters
            and abs(row.flops_per_step / flops_per_step - 1) <= SAME_FLOPS
        ]
        return median(found) if found else None
