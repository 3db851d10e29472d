"""Loss against forward FLOPs, both over the optimal baseline's (arXiv 2404.02258, figure 4).

And against active parameters, where experts make them differ from all there are.
"""

from __future__ import annotations

import math
from statistics import mean
from typing import Any

import altair as alt
import pandas as pd

from isoflop.config import Own
from isoflop.notation import exponent
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Section
from isoflop.report.theme import INK, PICKED, fading
from isoflop.report.words.prose import caption

_LARGEST_AREA = 760
_FLOPS = "Forward FLOPs per token / optimal baseline's"
_LOSS = "Test loss / optimal baseline's"


def section(analysis: Analysis) -> Section:
    """Return a figure per budget."""
    panels = [panel(analysis, result) for result in analysis.budgets]
    return Section("Loss against the cost of a forward pass", panels)


def panel(analysis: Analysis, result: BudgetResult) -> draw.Panel:
    """Draw one budget's sizes relative to the optimal baseline, or say why not."""
    title = f"Loss and forward FLOPs relative to the optimal baseline, {result.told}"
    if result.reference is None:
        return draw.Absent(title, f"No run of {analysis.baseline} has finished at this budget.")
    shown = rows(analysis, result)
    size = areas(shown["parameters"])
    base = alt.Chart().encode(
        x=draw.log_axis("forward_flops_ratio", _FLOPS, [*shown["forward_flops_ratio"], 1.0], 1.3),
        y=draw.linear_axis(alt.Y, "loss_ratio", _LOSS, [*shown["loss_ratio"], 1.0], share=0.1),
    )
    coloured = base.encode(color=analysis.style.colour(), opacity=fading())
    layers = [
        draw.rule(1.0, x=_FLOPS).add_params(PICKED),
        draw.rule(1.0, y=_LOSS),
        coloured.transform_filter("datum.on_ladder")
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, strokeOpacity=0.8)
        .encode(order=alt.Order("parameters:Q")),
        coloured.mark_point(filled=True, fillOpacity=0.6, shape="circle").encode(
            size=size,
            tooltip=draw.told("variant parameters:,.0f forward_flops_ratio:.3f loss_ratio:.4f"),
        ),
        base.transform_filter("isValid(datum.numbers)")
        .mark_point(shape="circle", filled=False, opacity=1, strokeWidth=1.6)
        .encode(size=size, color=alt.ColorValue(INK)),
        *_numbers(base, shown),
    ]
    name = f"relative-loss-{exponent(result.budget_flops)}"
    told = caption("relative_loss", analysis, result)
    return draw.figure(name, title, told, layers, shown, height=360)


def rows(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return each size's forward FLOPs and loss over the reference baseline's, one budget.

    Columns: `variant`, `parameters`, `forward_flops_ratio`, `loss_ratio`, `numbers` (text, missing
    but for the four models of Figure 4), `on_ladder`; a row per variant and size, the mean over
    seeds.
    """
    reference = result.reference
    assert reference is not None
    return pd.DataFrame(
        {
            "variant": size.variant,
            "parameters": size.parameters,
            "forward_flops_ratio": size.forward_flops / reference.forward_flops,
            "loss_ratio": size.loss / reference.loss,
            # The optimal challenger may be the cheapest match too.
            "numbers": ", ".join(str(one.number) for one in result.figure4 if one.model == size)
            or None,
            "on_ladder": size.on_ladder,
        }
        for name in analysis.names
        for size in analysis.sizes(name, result.budget_flops)
    )


def areas(sizes: pd.Series[float]) -> alt.Size:
    """Encode `parameters` as the area of a bubble, with one to three round ones in the legend."""
    low, high = float(sizes.min()), float(sizes.max())
    steps = [10 ** math.floor(math.log10(high)) * share for share in (0.1, 0.2, 0.5, 1, 2, 5)]
    below = [step for step in steps if step <= high]
    # A legend without values has no size, and the whole picture then has none.
    round_ones = [step for step in below if step >= low * 0.7] or below[-1:]
    return alt.Size(
        "parameters:Q",
        scale=alt.Scale(domain=[0, high], range=[0, _LARGEST_AREA]),
        legend=alt.Legend(
            orient="bottom",
            title="Parameters (area)",
            titleColor=INK,
            titleFontWeight="normal",
            titleFontSize=11,
            titleOrient="left",
            labelExpr=draw.COUNT_LABEL,
            values=round_ones[-3:],
            symbolFillColor="#bdbdbd",
            symbolStrokeWidth=0,
            direction="horizontal",
            labelFontSize=11,
        ),
    )


def _numbers(base: alt.Chart, shown: pd.DataFrame) -> list[alt.Chart]:
    """Write the number beside each bubble of a numbered model, 1 and 2 above it."""
    layers, largest = [], shown["parameters"].max()
    for row in shown.dropna(subset=["numbers"]).to_dict("records"):
        radius = math.sqrt(_LARGEST_AREA * row["parameters"] / largest / math.pi)
        away = (radius + 9) * (-1 if row["numbers"][0] in "12" else 1)
        one = base.transform_filter(f"datum.numbers === '{row['numbers']}'").encode(
            text=alt.Text("numbers:N")
        )
        looks: list[dict[str, Any]] = [
            {"stroke": "white", "strokeWidth": 4, "strokeJoin": "round"},
            {"color": INK},
        ]
        layers += [one.mark_text(fontSize=13, fontWeight="bold", dy=away, **look) for look in looks]
    return layers


def over_active(analysis: Analysis) -> Section | None:
    """Return a figure per budget; None where no feed-forward has parameters that a token leaves.

    Those that routing around blocks leaves are not asked for: the result is over all parameters.
    """
    runs = [analysis.records[run_id] for run_id in analysis.table["run_id"]]
    experts = any(
        isinstance(one.config.model.feed_forward, Own)
        and one.parameters.active < one.parameters.total
        for one in runs
    )
    drawn = [active_panel(analysis, result) for result in analysis.budgets if experts]
    return Section("Loss against active parameters", drawn) if drawn else None


def active_panel(analysis: Analysis, result: BudgetResult) -> draw.Figure:
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
    return draw.figure(name, title, caption("active"), layers, shown, height=360)
