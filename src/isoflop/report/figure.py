"""What a figure is: one chart, the table that it shows, and the words around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import altair as alt
import numpy as np
import pandas as pd

from isoflop.fit.intervals import Floats
from isoflop.report.theme import CONFIG, INK, MUTED, log_ticks
from isoflop.text import visible

DATA = "figure"
"""Name of a chart's main data set: the rows of the figure's table."""

FULL_WIDTH, HALF_WIDTH = 640, 380
"""Plots of figures that stand alone on the page, and of those that stand in pairs."""

_ROW = 34
"""Height of one interval of several, pixels."""

PANEL_WIDTH, PANEL_COLUMNS = 150, 4
"""Of figures with a panel per range of positions: width of a panel, panels beside one another."""

COUNT_LABEL = "replace(replace(format(datum.value, '~s'), 'k', 'K'), 'G', 'B')"
"""Vega expression that writes a tick as 100K, 2.5M, 1B."""

COMPUTE_LABEL = (
    "datum.value >= 0.01 && datum.value < 1e4 ? format(datum.value, '~g') "
    ": replace(format(datum.value, '~e'), '+', '')"
)
"""Vega expression that writes a tick as 0.3 or 5e-7."""

POWER_LABEL = "datum.value === 0 ? '0' : replace(format(datum.value, '~e'), '+', '')"
"""Vega expression that writes a tick as 5e12."""

SIGNED_LABEL = "datum.value === 0 ? '0' : format(datum.value, '+~g')"
"""Vega expression that writes a tick as +0.01."""

LINES_LABEL = "split(datum.label, '\\n')"
"""Vega expression that breaks the name at a tick where it has a line break."""

TITLES = {
    "row": "Point",
    "what": "Point",
    "low": "95% from",
    "high": "to",
    "status": "Ended",
    "residual": "Log residual",
    "state": "Here",
    "top_k": "In the top k",
    "weight": "Weight from",
    "weight_end": "to",
    "share": "Share of tokens",
    "x_ratio": "Ratio on the x axis",
    "panel": "Losses",
    "non_embedding": "N",
    "compute": "PFLOP/s-days",
    "span": "Positions",
    "mark": "N",
}
"""What columns are called where a mark tells its row, of those that do not tell it themselves."""

RATIO_TICKS = (0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1, 1.25, 1.6, 2, 3, 5, 10)
"""Ticks of logarithmic axes over a ratio."""

XY = TypeVar("XY", alt.X, alt.Y)


@dataclass(frozen=True)
class Figure:
    """A figure in all its forms; files are rendered from `chart`, the CSV from `table`."""

    name: str
    """File name without its ending; also the anchor in the page."""
    title: str
    caption: str
    """How to read it, in plain text."""
    chart: alt.LayerChart | alt.FacetChart
    """Without the table's rows, which `spec` adds."""
    table: pd.DataFrame
    picture_width: int
    """Width of the plot, or of each panel, in rendered pictures, pixels before scaling."""

    def spec(self, width: int | None = None) -> dict[str, Any]:
        """Return the Vega-Lite specification, as wide as `width` pixels or as its container.

        Panels are as wide as in pictures unless `width` is given: Vega-Lite cannot fit them into a
        container, so the page's script does.
        """
        width = width or (self.picture_width if "facet" in self._without_data else None)
        sized = {"width": width or "container"}
        if "facet" in self._without_data:
            sized = {"spec": self._without_data["spec"] | sized}
        data = {"name": DATA, "values": _values(self.table)}
        return self._without_data | sized | {"data": data}

    @cached_property
    def _without_data(self) -> dict[str, Any]:
        # Validation against the schema is slow, and no figure's structure depends on the data:
        # a test does it.
        spec: dict[str, Any] = _inert(self.chart.to_dict(validate=False))
        return spec


@dataclass(frozen=True)
class Absent:
    """What is missing, such as a panel that cannot be drawn, and why or how to get it."""

    title: str
    text: str | tuple[object, ...]
    """As `blocks.Text`."""


Panel = Figure | Absent
Layers = Sequence[alt.Chart | alt.LayerChart]


def figure(
    name: str,
    title: str,
    caption: str,
    layers: Layers,
    table: pd.DataFrame,
    *,
    height: int,
    width: int = FULL_WIDTH,
) -> Figure:
    """Layer charts over one table and give them the house style.

    Where the first layer has `theme.PICKED`, a click on a variant in the legend fades the others:
    marks whose opacity is `theme.fading`.
    """
    # Altair copies a chart at every step: the table joins in the specification, and all is said at
    # once, not by `properties` and `configure`.
    chart = alt.layer(
        *layers, data=alt.NamedData(name=DATA), height=height, config=alt.Config(**CONFIG)
    )
    return Figure(name, title, caption, chart, table, width)


def intervals(
    named: tuple[str, str, str],
    table: pd.DataFrame,
    of: tuple[str, str, str],
    colour: alt.Color | alt.ColorValue,
    *,
    form: str = ".4f",
    at: float | None = None,
) -> Figure:
    """Draw a value with its interval for each name, the first at the top.

    `of` are the columns of names and of values, whose ends are beside it, and the title of their
    axis; `form` is of numbers, `at` the value of a line across.
    """
    names, column, axis = of
    low, high = f"{column}_low", f"{column}_high"
    values = table[[column, low, high]].melt()["value"].dropna().tolist()
    values += [] if at is None else [at]
    labels = SIGNED_LABEL if form.startswith("+") else alt.Undefined
    # A number does not stand on the line across.
    beside: dict[str, Any] = {} if at is None else {"align": "left", "dx": 5}
    order = table[names].tolist()
    base = alt.Chart().encode(
        x=linear_axis(alt.X, column, axis, values, tickCount=4, labelExpr=labels),
        y=names_axis(names, order, domain=order),
        color=colour,
    )
    layers = [
        *([] if at is None else [rule(at, x=axis)]),
        base.transform_filter(f"isValid(datum.{low})")
        .mark_rule(strokeWidth=2.2, strokeOpacity=0.7)
        .encode(
            x=alt.X(f"{low}:Q", title=axis, scale=alt.Scale(zero=False)), x2=alt.X2(f"{high}:Q")
        ),
        base.mark_point(filled=True, size=80, opacity=1).encode(
            tooltip=told(f"{names} {column}:{form} {low}:{form} {high}:{form}")
        ),
        base.mark_text(dy=-11, fontSize=10.5, **beside).encode(
            text=alt.Text(f"{column}:Q", format=form), color=alt.ColorValue(INK)
        ),
    ]
    return figure(*named, layers, table, height=_ROW * (len(table) + 1), width=HALF_WIDTH)


@dataclass(frozen=True)
class Panels:
    """How panels over one table stand beside one another."""

    order: Sequence[str]
    """Values of the table's column `panel`, the first at the top left."""
    axis_title: str
    """What the axes are, said once above all panels."""
    height: int
    """Of a panel, pixels."""
    width: int = PANEL_WIDTH
    """Of a panel in pictures, pixels."""
    columns: int = PANEL_COLUMNS
    """Panels beside one another, where there is room."""
    same_x: bool = True
    """Whether panels share the scale of the x axis; each has a y axis of its own."""


def panels(
    name: str, title: str, caption: str, layers: Layers, table: pd.DataFrame, layout: Panels
) -> Figure:
    """Layer charts without titles on their axes over one table, a panel per value of `panel`."""
    header = alt.Header(labelAnchor="start", labelFontSize=12, labelPadding=4, labelColor=INK)
    chart = (
        alt.layer(*layers, data=alt.NamedData(name=DATA), height=layout.height)
        .facet(
            alt.Facet("panel:N", sort=list(layout.order), title=None, header=header),
            columns=min(layout.columns, len(layout.order)),
            spacing={"row": 56, "column": 36},
            bounds="flush",
        )
        .resolve_scale(x="shared" if layout.same_x else "independent", y="independent")
        .resolve_axis(x="independent")
        .properties(
            title=alt.Title(
                layout.axis_title, fontSize=12, fontWeight="normal", color=MUTED, offset=8
            )
        )
        .configure(**CONFIG)
    )
    return Figure(name, title, caption, chart, table, layout.width)


def of_row(chart: alt.Chart, row: str) -> alt.Chart:
    """Return a chart of the rows of a table that are of one kind, as its column `row` tells it."""
    kept: alt.Chart = chart.transform_filter(f"datum.row === '{row}'")
    return kept


def tooltips(*columns: tuple[str, str] | tuple[str, str, str]) -> list[alt.Tooltip]:
    """Return what a mark tells of its row: column with its type, title, and format of a number."""
    return [
        alt.Tooltip(column, title=title, format="".join(form) or alt.Undefined)
        for column, title, *form in columns
    ]


def told(columns: str) -> list[alt.Tooltip]:
    """Return the same from names of columns apart by spaces, numbers with a colon and a format."""
    found = []
    for one in columns.split():
        name, _, form = one.partition(":")
        title = TITLES.get(name) or name.capitalize().replace("_", " ").replace("flops", "FLOPs")
        found.append((f"{name}:{'Q' if form else 'N'}", title, form))
    return tooltips(*found)


def inline(table: pd.DataFrame, name: str) -> alt.InlineData:
    """Return a table as inline data; what is not a finite number becomes null."""
    return alt.InlineData(values=_values(table), name=name)


def rule(value: float, *, x: str = "", y: str = "") -> alt.Chart:
    """Return a line across a plot at a value of its x axis, or of its y axis, named by title."""
    at = alt.Chart(inline(pd.DataFrame({"at": [value]}), "reference"))
    line: alt.Chart = at.mark_rule(color=MUTED, strokeWidth=1)
    return line.encode(x=alt.X("at:Q", title=x)) if x else line.encode(y=alt.Y("at:Q", title=y))


def zero_band(reach: float | None, y: str) -> list[alt.Chart]:
    """Return a line at zero of the y axis, titled `y`, on a grey band that reaches so far."""
    if reach is None:
        return [rule(0.0, y=y)]
    band = alt.Chart(inline(pd.DataFrame({"low": [-reach], "high": [reach]}), "band"))
    grey = band.mark_rect(color="#e9e9e4").encode(y=alt.Y("low:Q", title=y), y2=alt.Y2("high:Q"))
    return [grey, rule(0.0, y=y)]


def linear_axis(
    channel: type[XY],
    column: str,
    title: str | None,
    values: Iterable[float],
    share: float = 0.06,
    **axis: Any,
) -> XY:
    """Return an axis that leaves `share` of the range of `values` free on either side."""
    return channel(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(domain=padded(list(values), share), nice=False, zero=False),
        axis=alt.Axis(**{"tickCount": 6, **axis}),
    )


def log_axis(
    column: str,
    title: str | None,
    values: Sequence[float],
    margin: float,
    ticks: Sequence[float] = RATIO_TICKS,
    **axis: Any,
) -> alt.X:
    """Return a logarithmic x axis that reaches beyond `values` by a factor, `margin`."""
    low, high = min(values) / margin, max(values) * margin
    shown = [tick for tick in ticks if low <= tick <= high]
    return alt.X(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(**{"values": shown, "format": "~g", "grid": False, **axis}),
    )


def count_axis(column: str, title: str, values: Sequence[float], *, margin: float = 1.25) -> alt.X:
    """Return a logarithmic x axis over a count such as parameters, labelled 100K, 1M, 1B."""
    ticks = log_ticks(min(values) / margin, max(values) * margin)
    return log_axis(column, title, values, margin, ticks, labelExpr=COUNT_LABEL)


def names_axis(column: str, order: Sequence[str], **scale: Any) -> alt.Y:
    """Return a y axis of names, the first at the top, without line or ticks."""
    return alt.Y(
        f"{column}:N",
        title=None,
        sort=list(order),
        scale=alt.Scale(**scale),
        axis=alt.Axis(
            labelExpr=LINES_LABEL,
            labelLimit=150,
            labelPadding=8,
            ticks=False,
            domain=False,
            grid=False,
        ),
    )


def padded(values: Sequence[float], share: float = 0.06) -> list[float]:
    """Return a linear axis domain that leaves `share` of the range free on either side."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * share
    return [low - room, high + room]


def thinned(
    steps: Floats, losses: Floats, at_most: int, *, logarithmic: bool = False
) -> tuple[Floats, Floats]:
    """Return steps and losses of at most `at_most` points, evenly apart in steps or in their logs.

    Neighbours are averaged by the steps that they cover; the last step stays.
    """
    starts = np.arange(0, len(steps), max(1, -(-len(steps) // at_most)))
    if logarithmic and len(steps) > at_most:
        edges = np.geomspace(steps[0], steps[-1], at_most) * (1 - 1e-12)
        passed = np.searchsorted(edges, steps, side="right")
        starts = np.flatnonzero(np.diff(np.r_[-1, 0, passed[:-1]]))
    covered = np.diff(steps, prepend=0)
    sums = [np.add.reduceat(each, starts) for each in (covered, covered * losses)]
    return np.cumsum(sums[0]), sums[1] / sums[0]


def _values(table: pd.DataFrame) -> list[Any]:
    known = table.replace([math.inf, -math.inf], math.nan)
    for column in map(str, known.select_dtypes(["object", "string"])):
        known[column] = known[column].map(_inert)
    return known.astype(object).where(known.notna(), None).to_dict("records")


def _inert(value: Any) -> Any:
    """Spell out control characters in all text of a specification."""
    match value:
        case str():
            return visible(value, keep=" \n")
        case dict():
            return {_inert(key): _inert(one) for key, one in value.items()}
        case list():
            return [_inert(one) for one in value]
        case _:
            return value
