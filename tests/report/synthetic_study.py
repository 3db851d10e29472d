"""A study whose losses come from a known surface, so that its figures are known too."""

from __future__ import annotations

import math
import random

from isoflop.config import (
    CurvePoint,
    DataConfig,
    Environment,
    Evaluation,
    ModelConfig,
    ParameterCount,
    RandomK,
    Recipe,
    Routed,
    RunConfig,
    RunRecord,
    Study,
    TopK,
    Variant,
    decisions,
)

ENVIRONMENT = Environment(
    isoflop="0.1.0",
    torch="2.13.0",
    python="3.11.2",
    machine="x86_64, AMD EPYC, 2 cores",
    device="cpu",
    threads=1,
    compiled=True,
    code="c0de" * 16,
)

# Irreducible loss and the factor on the parameter term, per variant: lower is better.
SURFACE = {
    "Baseline": (0.70, 1.00),
    "MoD 12.5%": (0.69, 0.98),
    "MoD 50%": (0.695, 1.00),
    "MoD 50%, random": (0.72, 1.06),
}

VARIANTS = (
    Variant(name="Baseline"),
    Variant(name="MoD 12.5%", depth=TopK(capacity=0.125)),
    Variant(name="MoD 50%", depth=TopK(capacity=0.5)),
    Variant(name="MoD 50%, random", depth=RandomK(capacity=0.5)),
)


def study(
    budgets: tuple[float, ...] = (5e12,),
    seeds: tuple[int, ...] = (0, 1, 2),
    variants: tuple[Variant, ...] = VARIANTS,
) -> Study:
    told = {"budgets_flops": budgets, "seeds": seeds, "variants": variants}
    return Study(name="mod-variants", recipe=Recipe(), **told)


def model(width: int, variant: Variant, blocks: int = 6) -> ModelConfig:
    shape = {"width": width, "blocks": blocks, "heads": max(1, width // 16), "head_width": 16}
    return ModelConfig(vocabulary=256, **shape, hidden=3 * width, depth=variant.depth)


def parameters(config: ModelConfig) -> ParameterCount:
    every = config.blocks * (4 * config.width**2 + 3 * config.width * config.hidden)
    embedding = config.vocabulary * config.width
    share = 1.0
    if isinstance(config.depth, Routed):
        share -= len(config.routed_blocks) / config.blocks * (1 - config.depth.capacity)
    return ParameterCount(
        total=every + 2 * embedding,
        non_embedding=every + embedding,
        active=int(share * every) + 2 * embedding,
    )


def record(
    variant: Variant,
    budget: float,
    width: int,
    seed: int = 0,
    *,
    blocks: int = 6,
    noise: float = 0.002,
    slope: float = 0.0,
) -> RunRecord:
    """Return a finished run; `slope` tilts loss over log parameters to push the minimum out."""
    shape = model(width, variant, blocks)
    counted = parameters(shape)
    forward = 2.0 * (counted.active + 12 * 256 * width)
    tokens_per_step = 2048
    steps = max(1, round(budget / (3 * forward) / tokens_per_step))
    config = RunConfig(
        model=shape,
        data=DataConfig(sequence_length=256),
        recipe=Recipe(),
        steps=steps,
        sequences_per_step=8,
        budget_flops=budget,
        seed=seed,
    )
    floor, scale = SURFACE.get(variant.name, SURFACE["Baseline"])
    tokens = config.tokens
    loss = floor + scale * 84 / counted.total**0.45 + 95 / tokens**0.4
    loss += slope * math.log(counted.total)
    loss += random.Random(config.run_id).gauss(0, noise)
    curve = tuple(
        CurvePoint(step=step, loss=loss + 4.6 * math.exp(-9 * done) + 0.3 * (1 - done))
        for step in (max(1, round(steps * (i + 1) / 60)) for i in range(60))
        for done in (step / steps,)
    )
    of_token = {"causal": 3 * forward, "full": 3.3 * forward, "6nd": 6.0 * counted.non_embedding}
    flops = {convention: of * tokens for convention, of in of_token.items()}
    return finished(config, counted, flops, loss, curve)


def finished(
    config: RunConfig,
    counted: ParameterCount,
    flops: dict[str, float],
    loss: float,
    curve: tuple[CurvePoint, ...],
    **measured,
) -> RunRecord:
    """Return the record of a run whose causal losses are `loss`, other decisions' a little more."""
    evaluations = [
        Evaluation(
            split=split,
            decision=decision,
            loss=loss + 0.0005 * rank,
            bits_per_byte=(loss + 0.0005 * rank) / math.log(2),
            tokens=600_000,
            **measured,
        )
        for split in ("validation", "test")
        for rank, decision in enumerate(decisions(config.model.depth))
    ]
    return RunRecord(
        run_id=config.run_id,
        state="finished",
        config=config,
        parameters=counted,
        forward_flops=flops["causal"] / 3 / config.tokens,
        train_flops=flops,
        seconds=60.0,
        train_loss=loss + 0.01,
        curve=curve,
        evaluations=tuple(evaluations),
        data_sha256="da7a" * 16,
        environment=ENVIRONMENT,
    )


BUMP = 0.02
"""Nats added to one run that otherwise lies on the surface."""


def worse(one: RunRecord, by: float) -> RunRecord:
    """Return a run whose losses are higher by so many nats."""
    evaluations = [e.model_copy(update={"loss": e.loss + by}) for e in one.evaluations]
    return one.model_copy(update={"evaluations": tuple(evaluations)})


def diverged(variant: Variant, budget: float, width: int, reason: str) -> RunRecord:
    whole = record(variant, budget, width, seed=7)
    return whole.model_copy(
        update={"state": "diverged", "reason": reason, "evaluations": (), "train_loss": None}
    )


WIDTHS = (32, 48, 64, 80, 96, 128, 160)


def runs(
    of: Study, *, widths: tuple[int, ...] = WIDTHS, noise: float = 0.002, slope: float = 0.0
) -> list[tuple[str, float, RunRecord]]:
    """Return (variant, budget, record) for every size and seed."""
    return [
        (variant.name, budget, record(variant, budget, scaled, seed, noise=noise, slope=slope))
        for budget in of.budgets_flops
        for variant in of.variants
        for width in widths
        for scaled in [max(16, 16 * round(width * (budget / 5e12) ** 0.25 / 16))]
        for seed in of.seeds
    ]
