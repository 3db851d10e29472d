"""A scaling study whose losses follow known power laws, so that its figures are known too."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from synthetic_study import finished

from isoflop.config import (
    BlockAttention,
    CurvePoint,
    DataConfig,
    FullAttention,
    ModelConfig,
    ParameterCount,
    Positions,
    Recipe,
    RunConfig,
    RunRecord,
    ScaledModel,
    Scaling,
    SpanLoss,
    Study,
    Variant,
)
from isoflop.fit.spans.values import PFLOPS_DAY

WINDOW = 2048
SIZES = ((4, 64), (5, 80), (6, 96), (8, 128), (10, 160))
VARIANTS = (
    Variant(name="Full attention"),
    Variant(name="Block attention", attention=BlockAttention(block_size=64, top_k=3)),
)
DOCUMENTS, WINDOWS = 10, 4
"""Held-out documents, and windows of each."""


def study(
    seeds: tuple[int, ...] = (0, 1, 2),
    variants: tuple[Variant, ...] = VARIANTS,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    margin: float | None = 0.01,
) -> Study:
    return Study(
        name="moba-scaling",
        scaling=Scaling(models=tuple(ScaledModel(blocks=b, width=w) for b, w in sizes)),
        seeds=seeds,
        recipe=Recipe(),
        equivalence_margin=margin,
        learning_rate_check=(0.5, 2.0),
        positions=Positions(ranges=8, trailing=128),
        data=DataConfig(corpus="python", sequence_length=WINDOW, windows="documents"),
        variants=variants,
    )


def level_of(span: tuple[int, int]) -> float:
    """Return the loss at 1e-7 PFLOP/s-days: later positions are easier."""
    start, stop = span
    return 1.42 + 0.45 * math.exp(-(start + stop) / 2 / 260)


def gap_of(variant: Variant, span: tuple[int, int]) -> float:
    """Return what block attention costs: nothing where it still sees everything."""
    if isinstance(variant.attention, FullAttention):
        return 0.0
    return 0.003 * min(1.0, max(0, span[1] - 256) / 1024)


def record(
    of: Study,
    variant: Variant,
    blocks: int,
    width: int,
    seed: int = 0,
    *,
    rate: float = 1.0,
    points: int = 200,
) -> RunRecord:
    """Return a finished run of one size; `rate` multiplies the learning rate."""
    shape = ModelConfig(
        vocabulary=256,
        width=width,
        blocks=blocks,
        heads=width // 16,
        head_width=16,
        hidden=3 * width,
        attention=variant.attention,
        depth=variant.depth,
    )
    non_embedding = blocks * (4 * width**2 + 9 * width**2)
    assert of.scaling is not None
    steps = round(of.scaling.tokens_per_parameter * non_embedding / (8 * WINDOW))
    config = RunConfig(
        model=shape,
        data=of.data,
        recipe=Recipe(learning_rate=8e-3 * rate),
        steps=steps,
        sequences_per_step=8,
        seed=seed,
        positions=of.positions,
    )
    total = non_embedding + 512 * width
    compute = 6.0 * non_embedding * config.tokens
    seen = WINDOW / 2 if isinstance(variant.attention, FullAttention) else 192
    exact = 3.0 * config.tokens * (2 * non_embedding + 4 * blocks * seen * width)
    noise = random.Random(config.run_id)
    shift = noise.gauss(0, 0.0015) + 0.02 * math.log(rate) ** 2
    losses = [
        level_of(span) * (compute / PFLOPS_DAY / 1e-7) ** -0.055
        + gap_of(variant, span)
        + shift
        + noise.gauss(0, 0.0005)
        for span in config.spans
    ]
    curve = []
    for i in range(points):
        step = max(1, round(steps * (i + 1) / points))
        above = 3.6 * math.exp(-14 * step / steps) + 0.35 * (1 - step / steps) ** 0.7
        told = tuple(loss + above + noise.gauss(0, 0.012) for loss in losses)
        curve.append(CurvePoint(step=step, loss=told[-2], span_losses=told))
    whole = losses[config.spans.index((0, WINDOW))]
    spans = tuple(
        SpanLoss(
            start=start,
            stop=stop,
            loss=loss,
            document_losses=tuple((loss + a) * (stop - start) * WINDOWS for a in _apart(blocks)),
            document_windows=(WINDOWS,) * DOCUMENTS,
        )
        for (start, stop), loss in zip(config.spans, losses, strict=True)
    )
    counted = ParameterCount(total=total, non_embedding=non_embedding, active=total)
    flops = {"causal": exact, "full": 1.2 * exact, "6nd": compute}
    return finished(config, counted, flops, whole, tuple(curve), spans=spans)


def _apart(blocks: int) -> list[float]:
    """Return how far each document's loss is from the mean, nearly the same in every run."""
    noise = random.Random(blocks)
    found = [0.2 * (i - (DOCUMENTS - 1) / 2) + noise.gauss(0, 0.002) for i in range(DOCUMENTS)]
    return [one - sum(found) / DOCUMENTS for one in found]


def runs(of: Study, **options) -> dict[str, list[RunRecord]]:
    """Return the records of each variant, by size, then by seed."""
    models = of.scaling.models
    return {
        variant.name: [
            record(of, variant, size.blocks, size.width, seed, **options)
            for size in models
            for seed in of.seeds
        ]
        for variant in of.variants
    }


def checks(of: Study) -> dict[str, list[RunRecord]]:
    """Return the runs at other learning rates, at the middle size and the first seed."""
    size = of.scaling.models[of.scaling.checked]
    shape = (size.blocks, size.width, of.seeds[0])
    return {
        variant.name: [record(of, variant, *shape, rate=r) for r in of.learning_rate_check]
        for variant in of.variants
    }


def joined(found: Mapping[str, Sequence[RunRecord]]) -> tuple[list[RunRecord], dict[str, str]]:
    """Return all records, and the name of the variant of each."""
    records = [one for own in found.values() for one in own]
    return records, {one.run_id: name for name, own in found.items() for one in own}
