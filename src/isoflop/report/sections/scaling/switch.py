"""What happens where block attention turns to full attention (arXiv 2502.13189, section 3.3).

Runs of one seed see the same batches, so that a variant's training loss less the baseline's, batch
by batch, shows the turn where the loss itself is too noisy.
"""

from __future__ import annotations

import math

import altair as alt
import numpy as np
import pandas as pd

from isoflop.config import BlockAttention, RunRecord
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
    pairs, turns = _pairs(analysis), _turning(analysis)
    apart = apart_panel(analysis)
    tables: list[pd.DataFrame] = []
    for variant, own in pairs.items():
        if not tables:
            tables.append(_curve(own, LOSS, analysis.baseline, own["base"]))
        tables.append(_curve(own, LOSS, variant, own["loss"]))
        tables.append(_curve(own, apart, variant, own["loss"] - own["base"]))
    turned = [
        {"row": "turn", "panel": panel, "variant": variant, "share": turn, "loss": None}
        for variant, turn in turns.items()
        if variant in pairs
        for panel in (LOSS, apart)
    ]
    if not turned:
        return pd.DataFrame()
    return pd.DataFrame([*(row for one in tables for row in one.to_dict("records")), *turned])


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
    layers = [
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
            order=alt.Order("share:Q"),
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
    found, pairs = [], _pairs(analysis)
    for variant, turn in _turning(analysis).items():
        if variant not in pairs:
            continue
        own = pairs[variant]
        share, apart = own["share"], own["loss"] - own["base"]
        before = apart[(share > turn - BEFORE) & (share <= turn)].mean()
        end = apart[share > 1 - AFTER].mean()
        worst = _smoothed(apart[share > turn]).max()
        seeds, steps = own.attrs["seeds"], own.attrs["steps"] / len(own) * SMOOTHED_POINTS
        found.append(
            f"{variant} attends fully from {turn:.0%} of training on. Its training loss less that "
            f"of {analysis.baseline} in the same batches is {before:+.4f} over the "
            f"{BEFORE:.0%} of training before, {end:+.4f} over the last {AFTER:.0%}, and "
            f"nowhere after the switch above {worst:+.4f} ({analysis.loss_unit}, means over "
            f"{seeds} seed{'s' * (seeds > 1)} and {math.ceil(steps)} steps)."
        )
    return tuple(found)


def _turning(analysis: ScalingAnalysis) -> dict[str, float]:
    """Return the share of training at which variants turn to full attention, of those that do."""
    return {
        variant.name: variant.attention.full_from
        for variant in analysis.study.variants
        if isinstance(variant.attention, BlockAttention) and variant.attention.ends_full
    }


def _pairs(analysis: ScalingAnalysis) -> dict[str, pd.DataFrame]:
    """Return each variant's training curve beside the baseline's, means over the seeds of both.

    Of the largest size: `share` of training, `loss`, and `base`, the loss of the baseline.
    """
    curves: dict[str, dict[int, RunRecord]] = {}
    for variant, record in analysis.finished:
        model = record.config.model
        if (model.blocks, model.width) == _size(analysis) and record.curve:
            curves.setdefault(variant, {})[record.config.seed] = record
    base, pairs = curves.pop(analysis.baseline, {}), {}
    for variant, own in curves.items():
        seeds = [seed for seed in own if seed in base]
        if seeds:
            first = own[seeds[0]]
            steps = first.config.steps
            found = {"share": np.array([point.step for point in first.curve]) / steps}
            for name, runs in (("loss", own), ("base", base)):
                losses = [[point.loss for point in runs[seed].curve] for seed in seeds]
                found[name] = np.mean(losses, axis=0)
            pairs[variant] = pd.DataFrame(found)
            pairs[variant].attrs |= {"seeds": len(seeds), "steps": steps}
    return pairs


def _size(analysis: ScalingAnalysis) -> tuple[int, int] | None:
    """Return blocks and width of the largest baseline that has finished."""
    sizes = [
        (record.parameters.non_embedding, record.config.model.blocks, record.config.model.width)
        for variant, record in analysis.finished
        if variant == analysis.baseline
    ]
    return max(sizes)[1:] if sizes else None


def _curve(own: pd.DataFrame, panel: str, variant: str, losses: pd.Series[float]) -> pd.DataFrame:
    """Return rows of the figure."""
    rows = pd.DataFrame({"share": _smoothed(own["share"]), "loss": _smoothed(losses)})
    named = rows.assign(row="curve", panel=panel, variant=variant)
    return named.loc[rows["share"] >= SHOWN_FROM, ["row", "panel", "variant", "share", "loss"]]


def _smoothed(values: pd.Series[float]) -> pd.Series[float]:
    """Return means of successive points, the last ones left over in a mean of their own."""
    return values.groupby(np.arange(len(values)) // SMOOTHED_POINTS).mean()
