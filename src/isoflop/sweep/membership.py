"""Which variant of a study a record is of, and whether its shape is one of the variant's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isoflop.config import ModelConfig, RunConfig, RunRecord, Study, Variant
from isoflop.costs import parameters
from isoflop.planning import affordable, ladder, resolve


@dataclass(frozen=True)
class StudyRuns:
    """The records that belong to a study, as fits and the report want them."""

    records: tuple[RunRecord, ...]
    variant_of: Mapping[str, str]
    """Name of the variant of each run id."""
    off_ladder: frozenset[str]
    """Run ids of the challenger in shapes of the baseline that are not its own."""


def study_runs(study: Study, records: Sequence[RunRecord]) -> StudyRuns:
    """Return which of `records` belong to a study, and to which variant.

    A record belongs to a variant when the study, asked for a run of that variant with the record's
    budget, shape and seed, gives this very run, and the shape is on the variant's ladder. Others
    are left aside: what a study trained before it was edited is no part of it.

    A run that two variants share counts for the first of them.
    """
    kept: list[RunRecord] = []
    variant_of: dict[str, str] = {}
    off_ladder: set[str] = set()
    for record in records:
        found = _variant(study, record.config)
        if found is None:
            continue
        variant, on_ladder = found
        kept.append(record)
        variant_of[record.run_id] = variant.name
        if not on_ladder:
            off_ladder.add(record.run_id)
    return StudyRuns(tuple(kept), variant_of, frozenset(off_ladder))


def _variant(study: Study, config: RunConfig) -> tuple[Variant, bool] | None:
    """Return the variant that a run is of, and whether it is on that variant's ladder."""
    budget = config.budget_flops
    if budget not in study.budgets_flops or config.seed not in study.seeds:
        return None
    possible = [variant for variant in study.variants if _gives(study, variant, budget, config)]
    for variant in possible:
        if _on_ladder(study, variant, budget, config.model):
            return variant, True
    challenger = study.challenger_variant
    if challenger is not None and study.matched_shapes and challenger in possible:
        return challenger, False
    return None


def _gives(study: Study, variant: Variant, budget: float, config: RunConfig) -> bool:
    """Return whether the study's run of a variant at this budget, shape and seed is this one."""
    model = config.model
    choices = (variant.attention, variant.depth, variant.feed_forward)
    if (model.attention, model.depth, model.feed_forward) != choices:
        return False
    if not affordable(study, budget, model):
        return False
    return resolve(study, variant, budget, model, config.seed).run_id == config.run_id


def _on_ladder(study: Study, variant: Variant, budget: float, model: ModelConfig) -> bool:
    sizes = ladder(study, variant, budget)
    wanted = parameters(model).total
    index = sizes.initial.start
    rung = sizes.rung(index)
    assert rung is not None, "a ladder has its first rungs"
    direction = 1 if parameters(rung).total < wanted else -1
    while rung is not None and direction * (wanted - parameters(rung).total) > 0:
        index += direction
        rung = sizes.rung(index)
    return rung == model
