"""Loss against active parameters, bubbles by all there are: where experts make them differ."""

from __future__ import annotations

from statistics import mean

import altair as alt
import pandas as pd

from isoflop.config import Own
from isoflop.notation import exponent
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Section
from isoflop.report.sections.relative_loss import areas
from isoflop.report.theme import PICKED, fading
from isoflop.report.words.prose import told


def section(analysis: Analysis) -> Section | None:
    """Return a figure per budget; None where no feed-forward has parameters that a token leaves.

    Those that routing around blocks leaves are not asked for: the result is over all parameters.
    """
    runs = [analysis.records[run_id] for run_id in analysis.table["run_id"]]
    experts = any(
        isinstance(one.config.model.feed_forward, Own)
        and one.parameters.active < one.parameters.total
        for one in runs
    )
    drawn = [panel(analysis, result) for result in analysis.budgets if experts]
    return Section("Loss against active parameters", drawn) if drawn else None


def panel(analysis: Analysis, result: BudgetResult) -> draw.Figure:
    """Draw one budget's sizes, means over seeds."""
    shown = pd.DataFrame(
        {
            "variant": name,
            "active": mean(analysis.records[run_id].parameters.active for run_id in size.run_ids),
            **{what: getattr(size, what) for what in ("parameters", "loss", "on_ladder")},
        }
        for name in analysis.names
        for size in analysis.sizes(name, result.budget_flops)
    )
    axis = f"Test loss, {analysis.loss_unit}"
    base = alt.Chart().encode(
        x=draw.count_axis("active", "Active parameters", list(shown["active"])),
        y=draw.linear_axis(alt.Y, "loss", axis, shown["loss"], share=0.1),
        color=analysis.style.colour(),
        opacity=fading(),
        tooltip=draw.told("variant active:,.0f parameters:,.0f loss:.4f"),
    )
    line = base.mark_line(strokeWidth=1.4, strokeOpacity=0.8).add_params(PICKED)
    bubble = base.mark_point(filled=True, fillOpacity=0.55, shape="circle")
    layers = [
        line.transform_filter("datum.on_ladder").encode(order=alt.Order("active:Q")),
        bubble.encode(size=areas(shown["parameters"])),
    ]
    name = f"active-parameters-{exponent(result.budget_flops)}"
    title = f"Loss against active parameters, {result.told}"
    return draw.figure(name, title, told("league", "active", {})[0], layers, shown, height=360)
