"""What happens where block attention turns to full attention (arXiv 2502.13189, section 3.3).

Runs of one seed see the same batches, so that a variant's training loss less the baseline's, batch
by batch, shows the turn where the loss itself is too noisy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import BlockAttention, RunRecord
from isoflop.report import figure as draw
from isoflop.report.blocks import Section, Sentences
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.theme import MUTED
from isoflop.report.words.prose import caption, told

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

    Columns: `row`, `panel` (the loss, or its difference to the baseline's in the same batches),
    `variant`, `share` of training and `loss` in nats per token; `row` is `curve`, or `turn` where a
    variant turns. Empty where none does, or none has finished beside the baseline.
    """
    beside, apart = _beside(analysis), apart_panel(analysis)
    turns = {name: turn for name, turn in _turning(analysis).items() if name in beside}
    columns = ["row", "panel", "variant", "share", "loss"]
    parts: list[pd.DataFrame] = []
    for variant, own in beside.items() if turns else ():
        shown = _smoothed(own)
        drawn = {(LOSS, analysis.baseline): shown["base"]} if not parts else {}
        drawn |= {(LOSS, variant): shown["loss"], (apart, variant): shown["loss"] - shown["base"]}
        for (panel, name), losses in drawn.items():
            one = shown.assign(row="curve", panel=panel, variant=name, loss=losses)
            parts.append(one.loc[one["share"] >= SHOWN_FROM, columns])
    found = [
        ("turn", panel, name, turn, None) for name, turn in turns.items() for panel in (LOSS, apart)
    ]
    return pd.concat([*parts, pd.DataFrame(found, columns=columns)], ignore_index=True)


def figure(analysis: ScalingAnalysis) -> draw.Figure | None:
    """Draw training loss around the turn, and beside it the difference to the baseline's."""
    table = rows(analysis)
    if table.empty:
        return None
    ends = [SHOWN_FROM, 1.0]
    base = alt.Chart().encode(
        x=draw.linear_axis(alt.X, "share", None, ends, 0.01, format="%", grid=False),
        color=analysis.style.colour(),
    )
    turn, curve = (draw.of_row(base, row) for row in ("turn", "curve"))
    y = alt.Y(
        "loss:Q",
        title=None,
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=5, format="~g"),
    )
    layers = [
        turn.mark_rule(strokeDash=[3, 3], strokeWidth=1, color=MUTED),
        curve.mark_line(strokeWidth=1.6).encode(y=y, order=alt.Order("share:Q")),
    ]
    axes = f"{analysis.loss_unit}, against the share of training"
    order = [LOSS, apart_panel(analysis)]
    return draw.panels(
        "switch-to-full-attention",
        "The switch to full attention",
        caption("switch", *_size(analysis)),
        layers,
        table,
        draw.Panels(order, axes, height=220, width=300, columns=2),
    )


def apart_panel(analysis: ScalingAnalysis) -> str:
    """Return what the second panel shows."""
    return f"less that of {analysis.baseline}, same batches"


def sentences(analysis: ScalingAnalysis) -> tuple[str, ...]:
    """Return for each variant that turns what its training loss did there."""
    found, beside = [], _beside(analysis)
    for variant, turn in _turning(analysis).items():
        if variant in beside:
            own = beside[variant].assign(apart=lambda one: one["loss"] - one["base"])
            share = own["share"]
            before = own[share.between(turn - BEFORE, turn, "right")]
            end, after = own[share > 1 - AFTER], own[share > turn]
            steps = math.ceil(own.attrs["steps"] / len(own) * SMOOTHED_POINTS)
            means = before["apart"].mean(), end["apart"].mean(), _smoothed(after)["apart"].max()
            found.append((variant, turn, *means, own.attrs["seeds"], steps))
    return told("scaling", "switch", analysis, found, BEFORE, AFTER)


def _turning(analysis: ScalingAnalysis) -> dict[str, float]:
    """Return the share of training at which variants turn to full attention, of those that do."""
    return {
        variant.name: variant.attention.full_from
        for variant in analysis.study.variants
        if isinstance(variant.attention, BlockAttention) and variant.attention.ends_full
    }


def _beside(analysis: ScalingAnalysis) -> dict[str, pd.DataFrame]:
    """Return each variant's training curve beside the baseline's, means over the seeds of both.

    Of the largest size: `share` of training, `loss`, and `base`, the loss of the baseline.
    """
    runs: dict[str, dict[int, RunRecord]] = {}
    for variant, one in analysis.finished:
        model = one.config.model
        if (model.blocks, model.width) == _size(analysis) and one.curve:
            runs.setdefault(variant, {})[one.config.seed] = one
    base, found = runs.pop(analysis.baseline, {}), {}
    for variant, own in runs.items():
        seeds = [seed for seed in own if seed in base]
        if seeds:
            steps = own[seeds[0]].config.steps
            curves = {"loss": _mean(own, seeds), "base": _mean(base, seeds)}
            found[variant] = pd.DataFrame(curves).rename_axis("step").reset_index()
            found[variant]["share"] = found[variant]["step"] / steps
            found[variant].attrs |= {"seeds": len(seeds), "steps": steps}
    return found


def _mean(runs: Mapping[int, RunRecord], seeds: Sequence[int]) -> pd.Series[float]:
    """Return the mean training loss of these seeds by step."""
    curves = [pd.Series({one.step: one.loss for one in runs[seed].curve}) for seed in seeds]
    return pd.concat(curves, axis=1).mean(axis=1)


def _size(analysis: ScalingAnalysis) -> tuple[int, int]:
    """Return blocks and width of the largest baseline that has finished, zeros without any."""
    runs = [one for name, one in analysis.finished if name == analysis.baseline]
    largest = max(runs, key=lambda one: one.parameters.non_embedding, default=None)
    return (largest.config.model.blocks, largest.config.model.width) if largest else (0, 0)


def _smoothed(curve: pd.DataFrame) -> pd.DataFrame:
    """Return means of successive points, the last ones left over in a mean of their own."""
    return curve.groupby(np.arange(len(curve)) // SMOOTHED_POINTS).mean()
