"""What a budget decides: tokens per step, steps, and the size that is expected to be best."""

from __future__ import annotations

import math
from collections.abc import Mapping

from isoflop.config import (
    Depth,
    ModelConfig,
    Muon,
    Recipe,
    Routed,
    RunConfig,
    Setting,
    Study,
    Variant,
)
from isoflop.config.study import LARGEST_PARAMETERS
from isoflop.costs import parameters, train_flops_per_token
from isoflop.planning.sizes import Ladder

REFERENCE_BUDGET_FLOPS = 5e12
REFERENCE_TOKENS_PER_STEP = 2048
"""Tokens in a step at the reference budget, as tuned there."""
TOKENS_PER_STEP_EXPONENT = 1 / 3
"""Takes 2,048 tokens at 5e12 FLOPs to the 262,144 of the Mixture-of-Depths paper at 6e18."""

REFERENCE_OPTIMUM_PARAMETERS = 280_000.0
"""Middle of what was best at 5e12 FLOPs on bytes: 230k for the baseline, 330k when routed."""
OPTIMUM_EXPONENT = math.log(250e6 / REFERENCE_OPTIMUM_PARAMETERS) / math.log(
    6e18 / REFERENCE_BUDGET_FLOPS
)
"""Takes 280k parameters at 5e12 FLOPs to the paper's 250M at 6e18: about 0.49."""

BUDGET_TOLERANCE = 0.01
"""Largest relative difference between the FLOPs spent and the budget."""


def tokens_per_step(
    budget_flops: float, sequence_length: int, exponent: float = TOKENS_PER_STEP_EXPONENT
) -> int:
    """Return the built-in number of tokens in an optimiser step, the same for every variant.

    The power of two nearest (by ratio) to 2048 (C / 5e12)^exponent, as the nearest whole number of
    sequences, at least one.
    """
    wanted = REFERENCE_TOKENS_PER_STEP * (budget_flops / REFERENCE_BUDGET_FLOPS) ** exponent
    return whole_sequences(2.0 ** round(math.log2(wanted)), sequence_length)


def whole_sequences(tokens: float, sequence_length: int) -> int:
    """Return the tokens of the nearest whole number of sequences, one at least."""
    return max(1, round(tokens / sequence_length)) * sequence_length


def sequences_per_step(study: Study, budget_flops: float, variant: Variant | None = None) -> int:
    """Return B, the sequences in an optimiser step of a study's runs at a budget.

    Raises:
        ValueError: If `tokens_per_step` of the study, or of the variant, is not a whole number of
            sequences.
    """
    length = study.data.sequence_length
    own = None if variant is None else at_budget(study, variant, budget_flops).tokens_per_step
    asked = own or study.tokens_per_step
    if asked is None:
        rules = study.recipe.rules
        if rules is None or rules.batch_exponent is None:
            return tokens_per_step(budget_flops, length) // length
        # Tokens near the best size grow with what of the budget its parameters leave.
        over_budget = rules.batch_exponent * (1 - OPTIMUM_EXPONENT)
        return tokens_per_step(budget_flops, length, over_budget) // length
    if asked % length:
        below = asked // length * length
        nearest = f"{below} or {below + length}" if below else f"{length}"
        raise ValueError(
            f"tokens_per_step is {asked}; expected a multiple of "
            f"data.sequence_length = {length}, such as {nearest}"
        )
    return asked // length


def with_settings(study: Study, variant: Variant, values: Mapping[Setting, float]) -> Variant:
    """Return a variant that has these settings, at every budget.

    Raises:
        ValueError: a value is none that the setting can have.
    """
    update: dict[str, object] = {str(name): value for name, value in values.items()}
    if (ratio := update.pop("width_per_block", None)) is not None:
        family = variant.shape or study.shape
        update["shape"] = family.model_copy(update={"width_per_block": ratio})
    if "tokens_per_step" in values:
        update["tokens_per_step"] = round(values["tokens_per_step"])
    fields = {name: getattr(variant, name) for name in Variant.model_fields}
    return Variant.model_validate(fields | {"exponents": None} | update)


def at_budget(study: Study, variant: Variant, budget_flops: float) -> Variant:
    """Return a variant as it is at a budget, where its settings move with it."""
    if (exponents := variant.exponents) is None:
        return variant
    recipe, length, first = study.recipe, study.data.sequence_length, study.budgets_flops[0]
    decay = variant.weight_decay
    at_first: dict[Setting, float] = {
        "learning_rate": variant.learning_rate or recipe.learning_rate,
        "weight_decay": recipe.optimiser.weight_decay if decay is None else decay,
        "warmup_fraction": variant.warmup_fraction or recipe.warmup_fraction,
        "tokens_per_step": variant.tokens_per_step or sequences_per_step(study, first) * length,
        "router_rate": variant.router_rate or recipe.router_rate,
        "width_per_block": (variant.shape or study.shape).width_per_block,
    }
    moving = {
        name: exponents.moved(name, one, budget_flops / first)
        for name, one in at_first.items()
        if getattr(exponents, name)
    }
    if "tokens_per_step" in moving:
        moving["tokens_per_step"] = whole_sequences(moving["tokens_per_step"], length)
    return with_settings(study, variant, moving)


def expected_optimum(study: Study, variant: Variant, budget_flops: float) -> float:
    """Return the total parameters around which a variant's first sizes lie at a budget.

    A variant's or the grid's `centre_parameters` holds at the first budget; later ones follow
    from it by the built-in exponent.
    """
    stated = variant.centre_parameters or study.grid.centre_parameters
    anchor_flops = study.budgets_flops[0] if stated else REFERENCE_BUDGET_FLOPS
    growth = math.exp(OPTIMUM_EXPONENT * math.log(budget_flops / anchor_flops))
    return (stated or REFERENCE_OPTIMUM_PARAMETERS) * growth


def ladder(study: Study, variant: Variant, budget_flops: float) -> Ladder:
    """Return the sizes of a variant at a budget: where runs share parts, those of one ladder.

    Raises:
        ValueError: If they would lie around more than `LARGEST_PARAMETERS`.
    """
    centre, factor = expected_optimum(study, variant, budget_flops), study.grid.factor
    if study.reuse:
        first = expected_optimum(study, variant, study.budgets_flops[0])
        centre = first * factor ** round(math.log(centre / first) / math.log(factor))
    start = study.start
    if start is None and centre > LARGEST_PARAMETERS:
        raise ValueError(
            f"budgets_flops: {budget_flops:.6g} FLOPs put the sizes of {variant.name!r} around "
            f"{centre:.3g} parameters; expected {LARGEST_PARAMETERS:g} at most: lower the budget, "
            "or grid.centre_parameters where it is set"
        )
    return Ladder(
        family=at_budget(study, variant, budget_flops).shape or study.shape,
        grid=study.grid,
        centre_parameters=centre,
        vocabulary=study.data.vocabulary,
        choices=variant.choices,
        only=None if start is None else start.taken(variant, f"variant {variant.name!r}"),
    )


def affordable(study: Study, variant: Variant, budget_flops: float, model: ModelConfig) -> bool:
    """Return whether whole steps of a variant's model can spend the budget to within 1%."""
    steps, missed = _steps(study, variant, budget_flops, model)
    return steps > 0 and missed <= BUDGET_TOLERANCE


def resolve(
    study: Study, variant: Variant, budget_flops: float, model: ModelConfig, seed: int
) -> RunConfig:
    """Return the run that trains a model for a budget of a study.

    The number of steps is what the budget buys under the study's convention: FLOPs are matched,
    tokens differ between models.

    Raises:
        ValueError: If the budget is too small for one step or whole steps miss it by over 1%, if
            the capacity selects no token of a sequence, or if `tokens_per_step` is not a whole
            number of sequences.
    """
    steps, missed = _steps(study, variant, budget_flops, model)
    tokens = sequences_per_step(study, budget_flops, variant) * study.data.sequence_length
    named = (
        f"budgets_flops: {budget_flops:.6g} FLOPs and {tokens} tokens per step give "
        f"{variant.name!r} at {parameters(model).total:,} parameters"
    )
    advice = "raise the budget, or lower tokens_per_step or data.sequence_length"
    if study.start is None:
        advice += ", or bound grid.maximum_parameters or grid.centre_parameters"
    if not steps:
        raise ValueError(f"{named} not one step; {advice}")
    if missed > BUDGET_TOLERANCE:
        raise ValueError(
            f"{named} {steps} steps, which miss the budget by {missed:.1%}; expected at most "
            f"{BUDGET_TOLERANCE:.0%}: {advice}"
        )
    return run_config(study, variant, model, budget_flops=budget_flops, steps=steps, seed=seed)


def run_config(
    study: Study,
    variant: Variant,
    model: ModelConfig,
    *,
    budget_flops: float,
    steps: int,
    seed: int,
) -> RunConfig:
    """Return the run that trains a model for a number of steps with a study's data and recipe.

    Raises:
        ValueError: If the capacity selects no token of a sequence, if `tokens_per_step` is not a
            whole number of sequences, or if the study's precision is not settled.
    """
    check_capacity(variant.depth, study.data.sequence_length, f"variant {variant.name!r}: ")
    variant = at_budget(study, variant, budget_flops)
    recipe = _recipe(study, variant)
    sequences = sequences_per_step(study, budget_flops, variant)
    if study.recipe.rules is not None:
        batch = sequences * study.data.sequence_length
        total = parameters(model).total
        recipe = study.recipe.rules.applied(recipe, batch=batch, steps=steps, parameters=total)
    if isinstance(recipe.optimiser, Muon) and not any(
        part != "depth" or one.source is not None for part, one in model.own.items()
    ):
        # Of what ships depth has no matrices; where no other part has any, it is the same run.
        plain = recipe.optimiser.model_copy(update={"own": "whole"})
        recipe = recipe.model_copy(update={"optimiser": plain})
    return RunConfig(
        model=model,
        data=study.data,
        recipe=recipe,
        steps=steps,
        sequences_per_step=sequences,
        budget_flops=budget_flops,
        convention=study.convention,
        seed=seed,
        evaluation_tokens=study.evaluation_tokens,
        evaluation_text=study.evaluation_text,
        positions=study.positions,
        start=study.start,
    )


def _recipe(study: Study, variant: Variant) -> Recipe:
    recipe = study.recipe.settled()
    named = ("learning_rate", "warmup_fraction", "router_rate")
    own = {name: getattr(variant, name) for name in named if getattr(variant, name) is not None}
    if (decay := variant.weight_decay) is not None:
        decayed: dict[str, object] = {"weight_decay": decay}
        if isinstance(recipe.optimiser, Muon):
            rest = recipe.optimiser.adamw.model_copy(update=decayed)
            decayed = {**decayed, "adamw": rest}
        own["optimiser"] = recipe.optimiser.model_copy(update=decayed)
    return recipe.model_copy(update=own)


def achieved_flops(config: RunConfig) -> float:
    """Return the training FLOPs of a run under its own convention."""
    per_token = train_flops_per_token(config.model, config.data.sequence_length, config.convention)
    return per_token * config.tokens


def _steps(
    study: Study, variant: Variant, budget_flops: float, model: ModelConfig
) -> tuple[int, float]:
    """Return the whole steps that come nearest a budget, and the share that they miss of it."""
    length = study.data.sequence_length
    per_token = train_flops_per_token(model, length, study.convention)
    step = per_token * sequences_per_step(study, budget_flops, variant) * length
    steps = round(budget_flops / step)
    return steps, abs(steps * step / budget_flops - 1)


def check_capacity(depth: Depth, sequence_length: int, place: str = "") -> None:
    """Raise a ValueError, which begins with `place`, where a depth selects no token at all."""
    if isinstance(depth, Routed) and depth.capacity * sequence_length < 1:
        raise ValueError(
            f"{place}depth.capacity = {depth.capacity:g} of data.sequence_length = "
            f"{sequence_length} selects no token; expected at least {1 / sequence_length:.2g}"
        )
