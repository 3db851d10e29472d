"""Loss against forward FLOPs, both over the optimal baseline's (arXiv 2404.02258, figure 4)."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import pandas as pd

from isoflop.report.figure import COUNT_LABEL, Figure, figure, inline, padded
from isoflop.report.theme import INK, MUTED, Style, fading

_LARGEST_AREA = 760
_TICKS = [2.0**power for power in range(-6, 7)]


def normalised_loss(
    name: str, title: str, table: pd.DataFrame, style: Style, loss_title: str, caption: str
) -> Figure:
    """Draw one budget's sizes relative to the optimal baseline.

    Args:
        name: file name of the figure.
        title: its title.
        table: columns `variant`, `parameters`, `forward_flops_ratio`, `loss_ratio`, `on_ladder`
            and `numbers` (text such as "1" for the models singled out, else missing); a row per
            variant and size, the mean over seeds.
        style: colours and shapes of the variants.
        loss_title: title of the loss axis.
        caption: how to read the figure.
    """
    ratios = [*table["forward_flops_ratio"], 1.0]
    low, high = min(ratios) / 1.3, max(ratios) * 1.3
    x = alt.X(
        "forward_flops_ratio:Q",
        title="Forward FLOPs per token / optimal baseline's",
        scale=alt.Scale(type="log", base=2, domain=[low, high], nice=False),
        axis=alt.Axis(
            values=[tick for tick in _TICKS if low <= tick <= high], format="~g", grid=False
        ),
    )
    y = alt.Y(
        "loss_ratio:Q",
        title=loss_title,
        scale=alt.Scale(domain=padded([*table["loss_ratio"], 1.0], 0.1), zero=False, nice=False),
        axis=alt.Axis(tickCount=6),
    )
    sizes = table["parameters"]
    size = alt.Size(
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
    base = alt.Chart().encode(x=x, y=y)
    one = alt.Chart(inline(pd.DataFrame({"one": [1.0]}), "reference"))
    rules = [
        one.mark_rule(color=MUTED, strokeWidth=1).encode(
            x=alt.X("one:Q", title="Forward FLOPs per token / optimal baseline's")
        ),
        one.mark_rule(color=MUTED, strokeWidth=1).encode(y=alt.Y("one:Q", title=loss_title)),
    ]
    lines = (
        base.transform_filter("datum.on_ladder")
        .mark_line(strokeDash=[4, 3], strokeWidth=1.2, strokeOpacity=0.8)
        .encode(color=style.colour(), order="parameters:Q", opacity=fading())
    )
    bubbles = base.mark_point(filled=True, fillOpacity=0.6, shape="circle").encode(
        color=style.colour(),
        opacity=fading(),
        size=size,
        tooltip=[
            alt.Tooltip("variant:N", title="Variant"),
            alt.Tooltip("parameters:Q", title="Parameters", format=",.0f"),
            alt.Tooltip("forward_flops_ratio:Q", title="Forward FLOPs ratio", format=".3f"),
            alt.Tooltip("loss_ratio:Q", title="Loss ratio", format=".4f"),
        ],
    )
    return figure(
        name,
        title,
        caption,
        [*rules, lines, bubbles, *_markers(base, table, size)],
        table,
        height=360,
        pickable=True,
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
        text: dict[str, Any] = {
            "fontSize": 13,
            "fontWeight": "bold",
            "dy": away,
        }
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
