"""What happens where block attention turns to full attention (arXiv 2502.13189, section 3.3).

Runs of one seed see the same batches, so that a variant's training loss less the baseline's, batch
by batch, shows the turn where the loss itself is too noisy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import BlockAttention, RunRecord
from isoflop.fit.intervals import Floats
from isoflop.report.blocks import Section, Sentences
from isoflop.report.figure import Figure, Panels, padded, panels
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.theme import MUTED

LOSS = "Training loss"
SHOWN_FROM = 0.5
"""Share of training from which on the figure shows it."""
BEFORE, AFTER = 0.1, 0.05
"""Shares of training before the turn and at its end over which differences are averaged."""
SMOOTHED_POINTS = 5
"""Points of a curve that one of the figure is the mean of."""


def section(analysis: ScalingAnalysis) -> Section | None:
    """Return the turn in words and the figure; None where no variant turns."""
    drawn = figure(analysis)
    if drawn is None:
        return None
    return Section("The switch to full attention", [Sentences(sentences(analysis)), drawn])


def rows(analysis: ScalingAnalysis) -> pd.DataFrame:
    """Return the training curves around the turn, means over seeds at the largest size.

    Columns: `panel` (the loss, or its difference to the baseline's in the same batches), `variant`,
    `share` of training and `loss` in nats per token; `row` is `curve`, or `turn` where a variant
    turns. Empty where none does, or none has finished beside the baseline.
    """
    pairs = _pairs(analysis)
    if not pairs or not _turning(analysis).keys() & pairs.keys():
        return pd.DataFrame()
    apart = apart_panel(analysis)
    found: list[dict[str, object]] = []
    base = np.mean([_losses(other) for _, other in next(iter(pairs.values()))], axis=0)
    share = _shares(next(iter(pairs.values()))[0][1])
    curves = {(LOSS, analysis.baseline): base}
    for variant, runs in pairs.items():
        curves[LOSS, variant] = np.mean([_losses(one) for one, _ in runs], axis=0)
        curves[apart, variant] = _difference(runs)
    for (panel, variant), losses in curves.items():
        for at, loss in zip(_smoothed(share), _smoothed(losses), strict=True):
            if at >= SHOWN_FROM:
                found.append(
                    {"row": "curve", "panel": panel, "variant": variant, "share": at, "loss": loss}
                )
    for variant, turn in _turning(analysis).items():
        if variant in pairs:
            for panel in (LOSS, apart):
                found.append(
                    {"row": "turn", "panel": panel, "variant": variant, "share": turn, "loss": None}
                )
    return pd.DataFrame(found)


def figure(analysis: ScalingAnalysis) -> Figure | None:
    """Draw training loss around the turn, and beside it the difference to the baseline's."""
    table = rows(analysis)
    if table.empty:
        return None
    base = alt.Chart().encode(
        x=alt.X(
            "share:Q",
            title=None,
            scale=alt.Scale(domain=padded([SHOWN_FROM, 1.0], 0.01), nice=False),
            axis=alt.Axis(format="%", grid=False, tickCount=6),
        ),
        color=analysis.style.colour(),
    )
    layers: list[alt.Chart | alt.LayerChart] = [
        base.transform_filter("datum.row === 'turn'").mark_rule(
            strokeDash=[3, 3], strokeWidth=1, color=MUTED
        ),
        base.transform_filter("datum.row === 'curve'")
        .mark_line(strokeWidth=1.6)
        .encode(
            y=alt.Y(
                "loss:Q",
                title=None,
                scale=alt.Scale(zero=False),
                axis=alt.Axis(tickCount=5, format="~g"),
            ),
            order="share:Q",
        ),
    ]
    size = _size(analysis)
    assert size is not None
    return panels(
        "switch-to-full-attention",
        "The switch to full attention",
        "Training loss against the share of training that is done, means over seeds of the largest "
        f"size ({size[0]} blocks of width {size[1]}), and how far it is above the baseline's in "
        "the same batches. The dashed line is where block attention turns to full attention.",
        layers,
        table,
        Panels(
            [LOSS, apart_panel(analysis)],
            f"{analysis.loss_unit}, against the share of training",
            height=220,
            width=300,
            columns=2,
        ),
    )


def apart_panel(analysis: ScalingAnalysis) -> str:
    """Return what the second panel shows."""
    return f"less that of {analysis.baseline}, same batches"


def sentences(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return for each variant that turns what its training loss did there."""
    found = []
    for variant, turn in _turning(analysis).items():
        runs = _pairs(analysis).get(variant)
        if not runs:
            continue
        share, apart = _shares(runs[0][0]), _difference(runs)
        before = apart[(share > turn - BEFORE) & (share <= turn)].mean()
        end = apart[share > 1 - AFTER].mean()
        after = share > turn
        worst = _smoothed(apart[after]).max()
        seeds = f"{len(runs)} seed{'s' * (len(runs) > 1)}"
        found.append(
            f"{variant} attends fully from {turn:.0%} of training on. Its training loss less that "
            f"of {analysis.baseline} in the same batches is {before:+.4f} over the "
            f"{BEFORE:.0%} of training before, {end:+.4f} over the last {AFTER:.0%}, and "
            f"nowhere after the switch above {worst:+.4f} ({analysis.loss_unit}, means over "
            f"{seeds} and {_span(runs[0][0])} steps)."
        )
    return tuple(found)


def _turning(analysis: ScalingAnalysis) -> dict[str, float]:
    """Return the share of training at which variants turn to full attention, of those that do."""
    return {
        variant.name: variant.attention.full_from
        for variant in analysis.study.variants
        if isinstance(variant.attention, BlockAttention) and variant.attention.ends_full
    }


def _pairs(analysis: ScalingAnalysis) -> dict[str, list[tuple[RunRecord, RunRecord]]]:
    """Return each variant's runs at the largest size beside the baseline's of the same seed."""
    size = _size(analysis)
    by_variant: dict[str, dict[int, RunRecord]] = {}
    for variant, record in analysis.finished():
        model = record.config.model
        if (model.blocks, model.width) == size and record.curve:
            by_variant.setdefault(variant, {})[record.config.seed] = record
    base = by_variant.get(analysis.baseline, {})
    pairs = {
        variant: [(own[seed], base[seed]) for seed in own if seed in base]
        for variant, own in by_variant.items()
        if variant != analysis.baseline
    }
    return {variant: runs for variant, runs in pairs.items() if runs}


def _size(analysis: ScalingAnalysis) -> tuple[int, int] | None:
    """Return blocks and width of the largest baseline that has finished."""
    sizes = [
        (record.parameters.non_embedding, record.config.model.blocks, record.config.model.width)
        for variant, record in analysis.finished()
        if variant == analysis.baseline
    ]
    return max(sizes)[1:] if sizes else None


def _difference(runs: list[tuple[RunRecord, RunRecord]]) -> Floats:
    return np.asarray(np.mean([_losses(one) - _losses(other) for one, other in runs], axis=0))


def _losses(record: RunRecord) -> Floats:
    return np.array([point.loss for point in record.curve])


def _shares(record: RunRecord) -> Floats:
    return np.array([point.step for point in record.curve]) / record.config.steps


def _smoothed(values: Floats) -> Floats:
    """Return means of successive points, the last ones left over in a mean of their own."""
    return np.array([part.mean() for part in _parts(values)])


def _parts(values: Floats) -> Iterator[Floats]:
    for start in range(0, len(values), SMOOTHED_POINTS):
        yield values[start : start + SMOOTHED_POINTS]


def _span(record: RunRecord) -> int:
    """Return the steps that a point of the figure is the mean of."""
    return math.ceil(record.config.steps / len(record.curve) * SMOOTHED_POINTS)
