"""Loss against forward FLOPs, both over the optimal baseline's (arXiv 2404.02258, figure 4)."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import pandas as pd

from isoflop.notation import exponent, scientific
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Section
from isoflop.report.figure import COUNT_LABEL, Absent, Figure, Panel, figure, padded, rule, tooltips
from isoflop.report.theme import INK, PICKED, fading

_LARGEST_AREA = 760
_FLOPS = "Forward FLOPs per token / optimal baseline's"
_LOSS = "Test loss / optimal baseline's"
_TICKS = [2.0**power for power in range(-6, 7)]


def section(analysis: Analysis) -> Section:
    """Return a figure per budget."""
    panels = [panel(analysis, result) for result in analysis.budgets]
    return Section("Loss against the cost of a forward pass", panels)


def panel(analysis: Analysis, result: BudgetResult) -> Panel:
    """Draw one budget's sizes relative to the optimal baseline, or say why not."""
    at = scientific(result.budget_flops)
    title = f"Loss and forward FLOPs relative to the optimal baseline, {at} FLOPs"
    if result.reference is None:
        return Absent(title, f"No run of {analysis.baseline} has finished at this budget.")
    caption = (
        f"Each bubble is one size, the mean over its seeds. {analysis.baseline} at its optimum is "
        "at (1, 1): below the horizontal line is a lower loss, left of the vertical one a cheaper "
        "forward pass. Dashed lines join the sizes of a variant."
    )
    if not result.reference_bracketed:
        caption += (
            f" The optimum of {analysis.baseline} is not bracketed: its lowest trained size stands "
            "in for it, so the ratios are provisional and no model is numbered."
        )
    elif result.figure4:
        caption += " " + " ".join(
            f"({one.number}) {one.rule}."
            if one.model
            else f"({one.number}) is missing: {one.reason}."
            for one in result.figure4
        )
    return _drawn(analysis, result, title, caption)


def rows(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return each size's forward FLOPs and loss over the reference baseline's, one budget.

    Columns: `variant`, `parameters`, `forward_flops_ratio`, `loss_ratio`, `numbers` (text, missing
    but for the four models of Figure 4), `on_ladder`; a row per variant and size, the mean over
    seeds.
    """
    reference = result.reference
    assert reference is not None
    # One trained size may hold two numbers: the optimal challenger may be the cheapest match too.
    numbers: dict[tuple[str, ...], list[str]] = {}
    for one in result.figure4:
        if one.model is not None:
            numbers.setdefault(one.model.run_ids, []).append(str(one.number))
    return pd.DataFrame(
        {
            "variant": size.variant,
            "parameters": size.parameters,
            "forward_flops_ratio": size.forward_flops / reference.forward_flops,
            "loss_ratio": size.loss / reference.loss,
            "numbers": ", ".join(numbers.get(size.run_ids, ())) or None,
            "on_ladder": size.on_ladder,
        }
        for name in analysis.names
        for size in analysis.sizes(name, result.budget_flops)
    )


def _drawn(analysis: Analysis, result: BudgetResult, title: str, caption: str) -> Figure:
    table, style = rows(analysis, result), analysis.style
    ratios = [*table["forward_flops_ratio"], 1.0]
    low, high = min(ratios) / 1.3, max(ratios) * 1.3
    x = alt.X(
        "forward_flops_ratio:Q",
        title=_FLOPS,
        scale=alt.Scale(type="log", base=2, domain=[low, high], nice=False),
        axis=alt.Axis(
            values=[tick for tick in _TICKS if low <= tick <= high], format="~g", grid=False
        ),
    )
    y = alt.Y(
        "loss_ratio:Q",
        title=_LOSS,
        scale=alt.Scale(domain=padded([*table["loss_ratio"], 1.0], 0.1), zero=False, nice=False),
        axis=alt.Axis(tickCount=6),
    )
    size = _areas(table["parameters"])
    base = alt.Chart().encode(x=x, y=y)
    rules = [rule(1.0, x=_FLOPS).add_params(PICKED), rule(1.0, y=_LOSS)]
    lines = (
        base.transform_filter("datum.on_ladder")
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, strokeOpacity=0.8)
        .encode(color=style.colour(), order="parameters:Q", opacity=fading())
    )
    bubbles = base.mark_point(filled=True, fillOpacity=0.6, shape="circle").encode(
        color=style.colour(),
        opacity=fading(),
        size=size,
        tooltip=tooltips(
            ("variant:N", "Variant"),
            ("parameters:Q", "Parameters", ",.0f"),
            ("forward_flops_ratio:Q", "Forward FLOPs ratio", ".3f"),
            ("loss_ratio:Q", "Loss ratio", ".4f"),
        ),
    )
    return figure(
        f"relative-loss-{exponent(result.budget_flops)}",
        title,
        caption,
        [*rules, lines, bubbles, *_markers(base, table, size)],
        table,
        height=360,
    )


def _areas(sizes: pd.Series[float]) -> alt.Size:
    """Encode parameters as the area of a bubble."""
    return alt.Size(
        "parameters:Q",
        scale=alt.Scale(domain=[0, float(sizes.max())], range=[0, _LARGEST_AREA]),
        legend=alt.Legend(
            orient="bottom",
            title="Parameters (area)",
            titleColor=INK,
            titleFontWeight="normal",
            titleFontSize=11,
            titleOrient="left",
            labelExpr=COUNT_LABEL,
            values=_size_steps(float(sizes.min()), float(sizes.max())),
            symbolFillColor="#bdbdbd",
            symbolStrokeWidth=0,
            direction="horizontal",
            labelFontSize=11,
        ),
    )


def _markers(base: alt.Chart, table: pd.DataFrame, size: alt.Size) -> list[alt.Chart]:
    """Outline the numbered models and write the number beside each bubble, 1 and 2 above it."""
    numbered = base.transform_filter("isValid(datum.numbers)")
    layers = [
        numbered.mark_point(shape="circle", filled=False, opacity=1, strokeWidth=1.6).encode(
            size=size, color=alt.value(INK)
        )
    ]
    largest = table["parameters"].max()
    for row in table[table["numbers"].notna()].to_dict("records"):
        radius = math.sqrt(_LARGEST_AREA * row["parameters"] / largest / math.pi)
        away = (radius + 9) * (-1 if row["numbers"][0] in "12" else 1)
        one = base.transform_filter(f"datum.numbers === '{row['numbers']}'")
        text: dict[str, Any] = {"fontSize": 13, "fontWeight": "bold", "dy": away}
        layers += [
            one.mark_text(
                **text, baseline="middle", stroke="white", strokeWidth=4, strokeJoin="round"
            ).encode(text="numbers:N"),
            one.mark_text(**text, baseline="middle", color=INK).encode(text="numbers:N"),
        ]
    return layers


def _size_steps(low: float, high: float) -> list[float]:
    """Return two or three round parameter counts for the legend of areas."""
    top = 10 ** math.floor(math.log10(high))
    steps = [top * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5)]
    return [step for step in steps if low * 0.7 <= step <= high][-3:]
