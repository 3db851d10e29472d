"""The tables behind the figures of a scaling study, one row per thing that is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from isoflop.config import BlockAttention, ModelConfig, RunRecord
from isoflop.fit.spans.values import PFLOPS_DAY, Axis
from isoflop.notation import count
from isoflop.report.scaling.analysis import ScalingAnalysis, Span, compute_of

CURVE_POINTS = 40
"""Points of a training curve that a panel draws at most, spaced evenly in log compute."""

BEYOND = 2.0
"""How far a projection is drawn beyond the largest compute."""

HEADROOM = 0.5
"""Room above the highest final loss of a panel, as a share of the range of its final losses."""

LOSS_COLUMNS = {
    "row": "str",
    "panel": "str",
    "variant": "str",
    "non_embedding": "Int64",
    "seed": "Int64",
    "compute": "float64",
    "loss": "float64",
}
GAP_COLUMNS = {
    "row": "str",
    "span": "str",
    "start": "int64",
    "stop": "int64",
    "variant": "str",
    "non_embedding": "Int64",
    "mark": "str",
    "difference": "float64",
    "low": "float64",
    "high": "float64",
    "outcome": "str",
}

MEAN = "mean"
"""Name of the mean over sizes among the marks of a gap."""


class Point(NamedTuple):
    """A point of a training curve in one span of positions."""

    step: int
    loss: float


def losses_against_compute(analysis: ScalingAnalysis, axis: Axis) -> pd.DataFrame:
    """Return the rows of the panels: training curves, final losses, ends of projections.

    Columns: `LOSS_COLUMNS`, where `row` is curve, run or projection, `panel` a span in words and
    `compute` in PFLOP/s-days. Curves hold training losses, runs test losses. What of a curve is off
    its panel's scale is left out.
    """
    rows: list[tuple[str, str, str, int | None, int | None, float, float]] = []
    runs = list(analysis.finished())
    farthest = BEYOND * max((compute_of(record, axis) for _, record in runs), default=0.0)
    for span, panel in analysis.names.items():
        finals = [
            ("run", panel, variant, *_of(record), _rounded(compute_of(record, axis)), loss)
            for variant, record in runs
            if (loss := _test_loss(record, span)) is not None
        ]
        if not finals:
            continue
        lines = _projections(analysis, span, axis, min(row[5] for row in finals), farthest)
        shown = [row[6] for row in (*finals, *lines)]
        top = max(shown) + HEADROOM * max(max(shown) - min(shown), 0.05 * max(shown))
        for variant, record in runs:
            step_compute = compute_of(record, axis) / record.config.steps
            rows += [
                (
                    "curve",
                    panel,
                    variant,
                    *_of(record),
                    _rounded(point.step * step_compute),
                    round(point.loss, 4),
                )
                for point in log_thinned(_curve(record, span))
                if point.loss <= top
            ]
        rows += finals + lines
    return pd.DataFrame(rows, columns=list(LOSS_COLUMNS)).astype(LOSS_COLUMNS)


def gaps(analysis: ScalingAnalysis) -> pd.DataFrame:
    """Return the rows of the gaps: of each span the mean over sizes, then each size.

    Columns: `GAP_COLUMNS`; differences and their ends are in nats, `mark` is the mean or the size
    in words. Gaps that could not be estimated are absent.
    """
    rows = [
        (
            "size" if one.non_embedding else "mean",
            name,
            one.start,
            one.stop,
            one.variant,
            one.non_embedding,
            count(one.non_embedding) if one.non_embedding else MEAN,
            one.difference.value,
            one.difference.low,
            one.difference.high,
            one.outcome,
        )
        for span, name in analysis.short_names.items()
        for one in (analysis.fit.gaps if analysis.fit else ())
        if (one.start, one.stop) == span and one.difference is not None
    ]
    return pd.DataFrame(rows, columns=list(GAP_COLUMNS)).astype(GAP_COLUMNS)


def all_runs(analysis: ScalingAnalysis) -> pd.DataFrame:
    """Return every run with its size, tokens, compute, recipe and test losses by span.

    Columns: those of `isoflop.fit.frame` but for the ones about routing and budgets, then
    `compute_6nd` and `compute_exact` (PFLOP/s-days), `steps`, `tokens_per_step`, `learning_rate`,
    `attention_sparsity`, and a `loss_START_STOP` per span.
    """
    dropped = ["on_ladder", "budget_flops", "forward_flops", "top_k_loss"]
    records = [analysis.records[run_id] for run_id in analysis.table["run_id"]]
    extra = [
        {
            "compute_6nd": record.train_flops["6nd"] / PFLOPS_DAY,
            "compute_exact": record.train_flops["causal"] / PFLOPS_DAY,
            "steps": record.config.steps,
            "tokens_per_step": record.config.tokens_per_step,
            "learning_rate": record.config.recipe.learning_rate,
            "attention_sparsity": sparsity(record.config.model, record.config.data.sequence_length),
            **{
                f"loss_{start}_{stop}": _test_loss(record, (start, stop))
                for start, stop in analysis.spans
            },
        }
        for record in records
    ]
    return pd.concat([analysis.table.drop(columns=dropped), pd.DataFrame(extra)], axis=1)


def sparsity(model: ModelConfig, sequence_length: int) -> float:
    """Return the share of a window that a query does not attend, 1 - top_k B / T; 0 where full."""
    attention = model.attention
    if not isinstance(attention, BlockAttention) or attention.ends_full:
        return 0.0
    return max(0.0, 1 - attention.top_k * attention.block_size / sequence_length)


def log_thinned(curve: Sequence[Point], at_most: int = CURVE_POINTS) -> list[Point]:
    """Return a curve with at most `at_most` points, about evenly spaced in log steps.

    Neighbours are averaged by the steps they cover; the last step stays.
    """
    if len(curve) <= at_most:
        return list(curve)
    first, last = curve[0].step, curve[-1].step
    edges = np.geomspace(first, last, at_most)
    points: list[Point] = []
    total, start, before, edge = 0.0, 0, 0, 0
    for point in curve:
        total += point.loss * (point.step - before)
        before = point.step
        if point.step >= edges[edge] * (1 - 1e-12):
            points.append(Point(step=before, loss=total / (before - start)))
            total, start = 0.0, before
            edge = int(np.searchsorted(edges, before * (1 + 1e-12)))
            if edge >= at_most:
                break
    return points


def _projections(
    analysis: ScalingAnalysis, span: Span, axis: Axis, nearest: float, farthest: float
) -> list[tuple[str, str, str, int | None, int | None, float, float]]:
    """Return both ends of each variant's line, which is straight on logarithmic axes."""
    panel = analysis.names[span]
    found = [analysis.projection(v.name, span, axis) for v in analysis.study.variants]
    return [
        ("projection", panel, one.variant, None, None, compute, round(one.at(compute), 5))
        for one in found
        if one is not None and one.a is not None and one.b is not None
        for compute in (_rounded(nearest), _rounded(farthest))
    ]


def _curve(record: RunRecord, span: Span) -> list[Point]:
    """Return the training curve in a span; empty where the record has none."""
    if span not in record.config.spans:
        return []
    index = record.config.spans.index(span)
    return [
        Point(step=point.step, loss=point.span_losses[index])
        for point in record.curve
        if len(point.span_losses) > index and math.isfinite(point.span_losses[index])
    ]


def _test_loss(record: RunRecord, span: Span) -> float | None:
    found = record.evaluation("test")
    spans = found.spans if found else ()
    return next((round(one.loss, 5) for one in spans if (one.start, one.stop) == span), None)


def _of(record: RunRecord) -> tuple[int, int]:
    return record.parameters.non_embedding, record.config.seed


def _rounded(compute: float) -> float:
    """Return five significant digits, which is more than a figure shows."""
    return float(f"{compute:.4e}")
