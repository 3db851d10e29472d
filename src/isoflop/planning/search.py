"""The recipe search: equal trials for every variant, judged on the validation split."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product

from isoflop.config import Frozen, RunConfig, RunRecord, Study, Variant
from isoflop.planning.cell import PlannedRun
from isoflop.planning.recipe import expected_optimum, resolve
from isoflop.planning.shapes import shape


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
        ValueError: the study declares no search.
    """
    search = study.search
    if search is None:
        raise ValueError(
            f"study {study.name!r} has no [search]; expected learning_rates and width_per_block"
        )
    budget = search.budget_flops or study.budgets_flops[0]
    by_id = {record.run_id: record for record in records}
    found = []
    for variant, ratio, rate in product(
        study.variants, search.width_per_block, search.learning_rates
    ):
        candidate = _candidate(study, variant, ratio, rate)
        model = shape(
            candidate.shape or study.shape,
            search.parameters or expected_optimum(study, candidate, budget),
            vocabulary=study.data.vocabulary,
            choices=candidate.choices,
        )
        configs = tuple(resolve(study, candidate, budget, model, seed) for seed in search.seeds)
        losses = [_validation_loss(by_id.get(config.run_id)) for config in configs]
        finished = [loss for loss in losses if loss is not None]
        found.append(
            Trial(
                variant=variant.name,
                learning_rate=rate,
                width_per_block=ratio,
                configs=configs,
                loss=statistics.fmean(finished) if len(finished) == len(losses) else None,
            )
        )
    return found


def next_trials(study: Study, records: Sequence[RunRecord]) -> list[PlannedRun]:
    """Return the runs of the search that have no record yet."""
    done = {record.run_id for record in records}
    planned = {
        config.run_id: PlannedRun(
            variant=trial.variant,
            budget_flops=config.budget_flops or 0.0,
            config=config,
            purpose="trial",
        )
        for trial in trials(study)
        for config in trial.configs
        if config.run_id not in done
    }
    return list(planned.values())


def _candidate(study: Study, variant: Variant, ratio: float, rate: float) -> Variant:
    family = (variant.shape or study.shape).model_copy(update={"width_per_block": ratio})
    return variant.model_copy(update={"shape": family, "learning_rate": rate})


def _validation_loss(record: RunRecord | None) -> float | None:
    if record is None or record.state != "finished":
        return None
    evaluation = record.evaluation("validation")
    return None if evaluation is None else evaluation.loss
