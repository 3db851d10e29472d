"""What the models of a study or a run cost, as rows."""

from __future__ import annotations

from typing import get_args

from isoflop.config import Convention, Frozen, ModelConfig, ParameterCount, RunConfig, Study
from isoflop.costs import cache_bytes, forward_flops, parameters, train_flops_per_token
from isoflop.planning import ladder, scaling_runs

CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


class CostRow(Frozen):
    """Parameters, FLOPs per token and cache bytes of one model."""

    name: str
    budget_flops: float | None
    model: ModelConfig
    sequence_length: int
    parameters: ParameterCount
    convention: Convention
    """The one that the budget is counted in."""
    forward_flops: dict[str, float]
    """Per token, by convention."""
    train_flops: dict[str, float]
    """Per token, by convention."""
    forward_parts: dict[str, dict[str, float]]
    """Forward FLOPs per token, by convention and part."""
    cache_bytes: int
    """Key/value cache of one sequence in bf16."""


def cost_rows(config: Study | RunConfig) -> list[CostRow]:
    """Return the costs of a run's model, or of each variant at its expected optimum by budget.

    Of a scaling study, those of each variant at each size. They are the same in any precision.

    Raises:
        ValueError: a variant has no size within the bounds of the study's grid.
    """
    length = config.data.sequence_length
    if isinstance(config, RunConfig):
        return [_row("run", config.budget_flops, config.model, length, config.convention)]
    if config.scaling is not None:
        return [
            _row(run.variant, run.budget_flops, run.config.model, length, config.convention)
            for run in scaling_runs(config.with_precision("bf16"))
            if run.purpose == "initial"
        ]
    rows = []
    for budget in config.budgets_flops:
        for variant in config.variants:
            sizes = ladder(config, variant, budget)
            initial = sizes.initial
            model = sizes.rung(initial[len(initial) // 2])
            assert model is not None, "the ladder's initial rungs exist"
            rows.append(_row(variant.name, budget, model, length, config.convention))
    return rows


def _row(
    name: str, budget: float | None, model: ModelConfig, length: int, convention: Convention
) -> CostRow:
    forward = {c: forward_flops(model, length, c) for c in CONVENTIONS}
    return CostRow(
        name=name,
        budget_flops=budget,
        model=model,
        sequence_length=length,
        parameters=parameters(model),
        convention=convention,
        forward_flops={c: flops.per_token for c, flops in forward.items()},
        train_flops={c: train_flops_per_token(model, length, c) for c in CONVENTIONS},
        forward_parts={c: flops.parts_per_token for c, flops in forward.items()},
        cache_bytes=cache_bytes(model, length),
    )
