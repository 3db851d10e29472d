"""The trials of a plain grid: each learning rate with each shape family, for every variant."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product

from isoflop.config import Frozen, RunConfig, RunRecord, Study
from isoflop.planning.cell import PlannedRun
from isoflop.planning.checks import validation_loss
from isoflop.planning.recipe import expected_optimum, resolve
from isoflop.planning.sizes import shape


class Trial(Frozen):
    """One choice of learning rate and shape family for one variant, over its seeds."""

    variant: str
    learning_rate: float
    width_per_block: float
    configs: tuple[RunConfig, ...]
    """One per seed."""
    loss: float | None
    """Mean validation loss over seeds, nats per token; None unless all have finished."""


def trials(study: Study, records: Sequence[RunRecord] = ()) -> list[Trial]:
    """Return the trials of a study, at the size it names or at the variant's expected optimum.

    Raises:
        ValueError: the study declares no search, or a finished record lacks its validation loss.
    """
    search = study.search
    if search is None or search.settings is not None:
        raise ValueError(
            f"study {study.name!r} has no [search] of a plain grid; expected learning_rates and "
            "width_per_block"
        )
    budget = search.budget_flops or study.budgets_flops[0]
    by_id = {record.run_id: record for record in records}
    found = []
    for variant, ratio, rate in product(
        study.variants, search.width_per_block, search.learning_rates
    ):
        family = (variant.shape or study.shape).model_copy(update={"width_per_block": ratio})
        candidate = variant.model_copy(update={"shape": family, "learning_rate": rate})
        model = shape(
            family,
            search.parameters or expected_optimum(study, candidate, budget),
            vocabulary=study.data.vocabulary,
            choices=candidate.choices,
        )
        configs = tuple(resolve(study, candidate, budget, model, seed) for seed in search.seeds)
        done = [by_id[config.run_id] for config in configs if config.run_id in by_id]
        losses = [validation_loss(record) for record in done if record.state == "finished"]
        found.append(
            Trial(
                variant=variant.name,
                learning_rate=rate,
                width_per_block=ratio,
                configs=configs,
                loss=statistics.fmean(losses) if len(losses) == len(configs) else None,
            )
        )
    return found


def next_trials(study: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
    """Return the runs of the search that have no record yet."""
    done = {record.run_id for record in records}
    planned = {
        config.run_id: PlannedRun(trial.variant, config, "trial")
        for trial in trials(study)
        for config in trial.configs
        if config.run_id not in done
    }
    return list(planned.values())
