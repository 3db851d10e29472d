"""The runs of a scaling study: every variant at every named size, for as many tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from isoflop.config import ModelConfig, RunConfig, RunRecord, ScaledModel, Scaling, Study, Variant
from isoflop.costs import parameters
from isoflop.planning.cell import PlannedRun, Purpose
from isoflop.planning.checks import checks
from isoflop.planning.recipe import run_config, sequences_per_step
from isoflop.planning.shapes import named_shape


def scaling_runs(study: Study, records: Sequence[RunRecord] = ()) -> list[PlannedRun]:
    """Return the runs of a scaling study that have no record yet.

    Tokens and nominal compute, 6 N D, of a size are those of the baseline there, so that they are
    the same for every variant even where one has parameters of its own.

    Args:
        study: What is asked.
        records: Records at hand, of any study.

    Returns:
        The first seed at every size, then other learning rates at the checked size, then further
        seeds; in each the small sizes first. Learning rates that the study may add come once those
        before them are done.

    Raises:
        ValueError: If the study names no sizes, or a size cannot be trained for its tokens.
    """
    done = {record.run_id: record for record in records}
    return [run for run in _runs(study, done) if run.config.run_id not in done]


def possible_scaling_runs(study: Study) -> list[PlannedRun]:
    """Return every run that `scaling_runs` asks for at some time, whatever comes of the others.

    Raises:
        ValueError: As `scaling_runs`.
    """
    return list(_runs(study, None))


def _runs(study: Study, records: Mapping[str, RunRecord] | None) -> Iterator[PlannedRun]:
    scaling = _scaling(study)
    for turn, seed in enumerate(study.seeds):
        for scaled in scaling.models:
            for variant in study.variants:
                purpose: Purpose = "replicate" if turn else "initial"
                yield _planned(variant, _resolved(study, scaled, variant, seed), purpose)
        if turn == 0:
            checked = scaling.models[scaling.checked]
            for variant in study.variants:
                resolved = partial(_resolved, study, checked)
                for purpose, config in checks(study, variant, resolved, records):
                    yield _planned(variant, config, purpose)


def _planned(variant: Variant, config: RunConfig, purpose: Purpose) -> PlannedRun:
    assert config.budget_flops is not None, "a size has its nominal compute"
    return PlannedRun(
        variant=variant.name, budget_flops=config.budget_flops, config=config, purpose=purpose
    )


def _resolved(study: Study, scaled: ScaledModel, variant: Variant, seed: int) -> RunConfig:
    non_embedding = parameters(_model(study, scaled, study.baseline_variant)).non_embedding
    tokens = scaled.tokens or _scaling(study).tokens_per_parameter * non_embedding
    budget = 6.0 * non_embedding * tokens
    sequences = sequences_per_step(study, budget)
    steps = round(tokens / (sequences * study.data.sequence_length))
    if not steps:
        raise ValueError(
            f"scaling.models: {scaled.blocks} blocks of width {scaled.width} get {tokens:,.0f} "
            f"tokens, less than half of a step of {sequences * study.data.sequence_length:,}; "
            "raise scaling.tokens_per_parameter, or lower tokens_per_step or data.sequence_length"
        )
    return run_config(
        study, variant, _model(study, scaled, variant), budget_flops=budget, steps=steps, seed=seed
    )


def _model(study: Study, scaled: ScaledModel, variant: Variant) -> ModelConfig:
    return named_shape(
        variant.shape or study.shape,
        scaled.blocks,
        scaled.width,
        vocabulary=study.data.vocabulary,
        choices=variant.choices,
    )


def _scaling(study: Study) -> Scaling:
    if study.scaling is None:
        raise ValueError(
            f"study {study.name!r} names budgets, no sizes; expected [[scaling.models]]"
        )
    return study.scaling
