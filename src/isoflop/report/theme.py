"""One look for every figure: colours and shapes per variant, type, axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import altair as alt

INK = "#1a1a1a"
MUTED = "#5c5c5c"
FONT = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif"

BASELINE_COLOUR = "#3b3b3b"
# Okabe and Ito's palette, told apart under the common colour-vision deficiencies, without the
# yellow that is lost on white, then two more for a league. The baseline is a dark grey.
CHALLENGER_COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#5d3a9b", "#7f5f2a"),
)
SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")

CONFIG: Mapping[str, Any] = {
    "background": "white",
    "font": FONT,
    "padding": {"left": 4, "right": 8, "top": 6, "bottom": 4},
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "tickSize": 4,
        "gridColor": "#ececec",
        "labelFlush": False,
        "labelOverlap": "greedy",
    },
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": INK,
        "labelFontSize": 12,
        "labelLimit": 270,
        "symbolSize": 80,
        "rowPadding": 4,
        "columnPadding": 18,
        "offset": 12,
    },
    "title": {"color": INK, "fontSize": 13, "anchor": "start"},
}

PICKED = alt.selection_point(name="picked", fields=["variant"], bind="legend", toggle="true")
"""The variants whose legend entries were clicked, until clicked again; all while there are none."""

FAINT = 0.07


def fading(opacity: float = 1.0) -> Any:
    """Return an opacity that falls where other variants than a mark's own were picked.

    The first layer that a figure shows must carry `PICKED`; see `figure.figure`.
    """
    picked = {"param": PICKED.name, "value": opacity}
    return alt.OpacityValue(FAINT, condition=[picked])


@dataclass(frozen=True)
class Style:
    """The colour and the shape of each variant, the same in every figure of a study."""

    names: tuple[str, ...]
    colours: tuple[str, ...]
    shapes: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], baseline: str) -> Style:
        """Give each of `names` a colour and a shape; the `baseline` is grey and comes first."""
        ordered = (baseline, *(name for name in names if name != baseline))
        colours = (BASELINE_COLOUR, *islice(cycle(CHALLENGER_COLOURS), len(ordered) - 1))
        return cls(ordered, colours, tuple(islice(cycle(SHAPES), len(ordered))))

    def colour_of(self, name: str) -> str:
        """Return the colour of a variant as a hexadecimal code."""
        return self.colours[self.names.index(name)]

    def colour(self, *, legend: bool = True) -> alt.Color:
        """Encode the column `variant` as colour."""
        return alt.Color("variant:N", **self._encoding(self.colours, legend))

    def fill(self) -> alt.Fill:
        """Encode the column `variant` as the inside of a point whose outline means something."""
        return alt.Fill("variant:N", **self._encoding(self.colours))

    def shape(self) -> alt.Shape:
        """Encode the column `variant` as the shape of a point."""
        return alt.Shape("variant:N", **self._encoding(self.shapes))

    def _encoding(self, values: Sequence[str], legend: bool = True) -> dict[str, Any]:
        columns = legend_columns(min(len(self.names), 4), max(map(len, self.names)))
        return {
            "scale": alt.Scale(domain=list(self.names), range=list(values)),
            "legend": alt.Legend(columns=columns, symbolOpacity=1) if legend else None,
        }


def legend_columns(wide: int = 4, longest: int = 0) -> Any:
    """Let a legend have fewer columns where names are long or, as on a phone, the figure narrow."""
    entry = 36 + min(CONFIG["legend"]["labelLimit"], 7 * longest)
    wide, narrow = (max(1, min(most, room // entry)) for most, room in ((wide, 640), (2, 320)))
    return alt.ExprRef(f"width < 420 ? {narrow} : {wide}")


def log_ticks(low: float, high: float, at_most: int = 8) -> list[float]:
    """Return two round tick values or more between `low` and `high`, both positive, for a log axis.

    The densest of the ladders 1-2-5, 1-3 and 1 per decade that stays within `at_most`; evenly apart
    where the range is too narrow for these.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for ladder in ((1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in ladder]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= at_most:
            break
    if len(ticks) < 2:
        ten = 10.0 ** math.floor(math.log10((high - low) / 2))
        step = next(ten * one for one in (1, 2, 5) if (high - low) / (ten * one) <= at_most + 1)
        ticks = [one * step for one in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return ticks
