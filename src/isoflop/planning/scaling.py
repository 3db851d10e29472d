"""The runs of a scaling study: every variant at every named size, for as many tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from itertools import product

from isoflop.config import ModelConfig, RunConfig, RunRecord, ScaledModel, Study, Variant
from isoflop.costs import parameters
from isoflop.planning.cell import PlannedRun
from isoflop.planning.checks import checks
from isoflop.planning.recipe import run_config, sequences_per_step
from isoflop.planning.sizes import named_shape


def scaling_runs(study: Study, records: Mapping[str, RunRecord] | None = None) -> list[PlannedRun]:
    """Return every run that a scaling study asks for, done or not.

    Tokens and nominal compute, 6 N D, of a size are those of the baseline there, so that they are
    the same for every variant even where one has parameters of its own.

    Returns:
        The first seed at every size, then other learning rates at the checked size, then further
        seeds; in each the small sizes first. Of learning rates that the study may add, those that
        follow from the records by run id; without records, all that it asks for at some time.

    Raises:
        ValueError: If a size cannot be trained for its tokens.
    """
    scaling = study.scaling
    assert scaling is not None, "the study names sizes"
    found = []
    for turn, seed in enumerate(study.seeds):
        for scaled, variant in product(scaling.models, study.variants):
            config = scaled_run(study, scaled, variant, seed)
            found.append(PlannedRun(variant.name, config, "replicate" if turn else "initial"))
        for variant in () if turn else study.variants:
            resolved = partial(scaled_run, study, scaling.models[scaling.checked])
            for purpose, config in checks(study, variant, resolved, records):
                found.append(PlannedRun(variant.name, config, purpose))
    return found


def scaled_run(study: Study, scaled: ScaledModel, variant: Variant, seed: int) -> RunConfig:
    """Return the run of a variant at one of the sizes; raises as `scaling_runs`."""
    assert study.scaling is not None
    non_embedding = parameters(_model(study, scaled, study.baseline_variant)).non_embedding
    tokens = scaled.tokens or study.scaling.tokens_per_parameter * non_embedding
    budget = 6.0 * non_embedding * tokens
    per_step = sequences_per_step(study, budget, variant) * study.data.sequence_length
    steps = round(tokens / per_step)
    if not steps:
        raise ValueError(
            f"scaling.models: {scaled.blocks} blocks of width {scaled.width} get {tokens:,.0f} "
            f"tokens, less than half of a step of {per_step:,}; "
            "raise scaling.tokens_per_parameter, or lower tokens_per_step or data.sequence_length"
        )
    model = _model(study, scaled, variant)
    return run_config(study, variant, model, budget_flops=budget, steps=steps, seed=seed)


def _model(study: Study, scaled: ScaledModel, variant: Variant) -> ModelConfig:
    return named_shape(
        variant.shape or study.shape,
        scaled.blocks,
        scaled.width,
        vocabulary=study.data.vocabulary,
        choices=variant.choices,
    )
