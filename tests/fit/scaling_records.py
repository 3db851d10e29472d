"""Records of scaling studies made from a known law, with noise of seeds and of documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from given import RECIPE, record_of
from isoflop.config import DataConfig, Evaluation, ModelConfig, RunConfig, RunRecord, SpanLoss
from isoflop.config.record import ParameterCount
from isoflop.config.run import Positions
from isoflop.fit.spans.values import PFLOPS_DAY

LENGTH = 96
POSITIONS = Positions(ranges=3, trailing=8)
SPANS = POSITIONS.spans(LENGTH)
SIZES = {(2, 16): 3_000, (3, 24): 7_000, (4, 32): 15_000, (5, 40): 40_000, (6, 48): 90_000}
"""N by blocks and width."""
DATA = DataConfig(sequence_length=LENGTH, windows="documents")

Law = Callable[[float, tuple[int, int]], float]
"""Loss of compute in PFLOP/s-days and a span."""


def compute(non_embedding: int) -> float:
    """Return PFLOP/s-days by 6 N D with D = 20 N, near enough in whole steps."""
    return 6 * non_embedding * _steps(non_embedding) * 2 * LENGTH / PFLOPS_DAY


def power_law(a: float, b: float) -> Law:
    """Return L = a C^b, the same in every span."""
    return lambda c, span: a * c**b


def study(
    laws: Mapping[str, Law],
    *,
    seeds: Sequence[int] = (0, 1, 2),
    sizes: Sequence[tuple[int, int]] = tuple(SIZES),
    windows: Sequence[int] = (3, 5, 4, 7, 2, 6),
    seed_noise: float = 0.0,
    document_noise: float = 0.0,
    gap_noise: float = 0.0,
    generator: np.random.Generator | None = None,
) -> tuple[list[RunRecord], dict[str, str]]:
    """Return records, by variant, size and seed, and the variant of each run.

    Args:
        laws: true loss of each variant.
        seeds: of every variant and size.
        sizes: blocks and width.
        windows: of each document.
        seed_noise: standard deviation of a run's loss, nats.
        document_noise: of the log of a document's difficulty, which every run shares.
        gap_noise: of a document's own difference from the first variant, nats.
        generator: of the noise.
    """
    draw = generator or np.random.default_rng(0)
    counts = np.array(windows)
    hard = np.exp(document_noise * draw.standard_normal(len(counts)))
    records, variant_of = [], {}
    for number, (name, law) in enumerate(laws.items()):
        own = gap_noise * draw.standard_normal(len(counts)) * (number > 0)
        for shape in sizes:
            cost = compute(SIZES[shape])
            for seed in seeds:
                luck = seed_noise * draw.standard_normal()
                spans = tuple(
                    _span(*span, hard * law(cost, span) + own + luck, counts) for span in SPANS
                )
                one = _record(number, shape, seed, spans)
                records.append(one)
                variant_of[one.run_id] = name
    return records, variant_of


def _span(start: int, stop: int, means: np.ndarray, counts: np.ndarray) -> SpanLoss:
    sums = means * counts * (stop - start)
    return SpanLoss(
        start=start,
        stop=stop,
        loss=float(sums.sum() / (counts.sum() * (stop - start))),
        document_losses=tuple(sums.tolist()),
        document_windows=tuple(counts.tolist()),
    )


def _record(
    number: int, shape: tuple[int, int], seed: int, spans: tuple[SpanLoss, ...]
) -> RunRecord:
    whole, n = spans[SPANS.index((0, LENGTH))], SIZES[shape]
    blocks, width = shape
    # Variants differ in the vocabulary only so that their run ids do.
    config = RunConfig(
        model=ModelConfig(
            vocabulary=256 + number, width=width, blocks=blocks, heads=2, head_width=8, hidden=32
        ),
        data=DATA,
        recipe=RECIPE,
        steps=_steps(n),
        sequences_per_step=2,
        seed=seed,
        positions=POSITIONS,
    )
    six_nd = 6.0 * n * config.tokens
    test = Evaluation(
        split="test",
        decision="every_token",
        loss=whole.loss,
        bits_per_byte=1.0,
        tokens=whole.tokens,
        spans=spans,
    )
    return record_of(
        config,
        None,
        parameters=ParameterCount(total=n + 999, non_embedding=n, active=n),
        # The exact count costs more, and more so for small models.
        train_flops={"6nd": six_nd, "causal": six_nd**0.9 * 50},
        evaluations=(test,),
    )


def _steps(non_embedding: int) -> int:
    return round(20 * non_embedding / (2 * LENGTH))
