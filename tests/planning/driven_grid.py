"""A grid driven to its end in made-up fashion, against made-up losses."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

from given import record_of
from isoflop.config import RandomK, Recipe, RunConfig, RunRecord, Study, TopK, Variant
from isoflop.costs import parameters
from isoflop.planning import PlannedRun, bound, expected_optimum, foreseen_runs, next_runs

ONLY = (Variant(name="only"),)

Loss = Callable[[PlannedRun], float | None]
"""The validation loss of a run; None for one that diverges."""


def make_study(**changes: Any) -> Study:
    """Return a study of a baseline, a routed variant and the random control."""
    values: dict[str, Any] = {
        "name": "study",
        "budgets_flops": (5e12,),
        "recipe": Recipe(),
        "variants": (
            Variant(name="Baseline"),
            Variant(name="MoD", depth=TopK(capacity=0.125)),
            Variant(name="Random", depth=RandomK(capacity=0.5)),
        ),
    }
    return Study(**{**values, **changes})


def total(config: RunConfig) -> int:
    return parameters(config.model).total


def valley(study: Study, displaced: float = 1.0, noise: float = 0.0) -> Loss:
    """A parabola in log parameters around the expected optimum times a factor."""
    variants = {variant.name: variant for variant in study.variants}

    def loss(run: PlannedRun) -> float:
        centre = displaced * expected_optimum(study, variants[run.variant], run.budget_flops)
        draw = random.Random(run.config.run_id).gauss(0, noise)
        return 2 + 0.03 * math.log(total(run.config) / centre) ** 2 + draw

    return loss


def drive(
    study: Study, loss: Loss, at_a_time: int = 10**6
) -> tuple[list[PlannedRun], list[RunRecord]]:
    """Train, in made-up fashion, what the grid asks for until it asks for nothing."""
    order = random.Random(0)
    done: list[PlannedRun] = []
    records: list[RunRecord] = []
    most = len(foreseen_runs(study)) + bound(study).runs
    while runs := next_runs(study, records):
        assert len({run.config.run_id for run in runs}) == len(runs)
        order.shuffle(runs)
        for run in runs[:at_a_time]:
            value = loss(run)
            state = "finished" if value is not None else "diverged"
            records.append(record_of(run.config, value, state))
            done.append(run)
        assert len(done) <= most, "more runs than the bound allows"
    assert len({run.config.run_id for run in done}) == len(done)
    return done, records
