"""What a figure is: one chart, the table that it shows, and the words around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import altair as alt
import pandas as pd

from isoflop.report.theme import CONFIG, INK, MUTED, PICKED, log_ticks

DATA = "figure"
"""Name of a chart's main data set: the rows of the figure's table."""

FULL_WIDTH, HALF_WIDTH = 640, 380
"""Plots of figures that stand alone on the page, and of those that stand in pairs."""

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
        spec = self._without_data | {"data": {"name": DATA, "values": _values(self.table)}}
        if isinstance(self.chart, alt.FacetChart):
            return spec | {"spec": spec["spec"] | {"width": width or self.picture_width}}
        return spec | {"width": width or "container"}

    @cached_property
    def _without_data(self) -> dict[str, Any]:
        # Validation against the schema is slow, and no figure's structure depends on the data:
        # a test does it.
        spec: dict[str, Any] = self.chart.to_dict(validate=False)
        return spec


def figure(
    name: str,
    title: str,
    caption: str,
    layers: Sequence[alt.Chart | alt.LayerChart],
    table: pd.DataFrame,
    *,
    height: int,
    width: int = FULL_WIDTH,
    pickable: bool = False,
) -> Figure:
    """Layer charts over one table and give them the house style.

    With `pickable`, a click on a variant in the legend fades the others: marks whose opacity is
    `theme.fading`.
    """
    # Altair copies a chart at every step: the table joins in the specification, and all is said at
    # once, not by `properties` and `configure`.
    first, *others = layers
    if pickable:
        first = first.add_params(PICKED)
    chart = alt.layer(
        first,
        *others,
        data=alt.NamedData(name=DATA),
        height=height,
        config=alt.Config(**CONFIG),
    )
    return Figure(name, title, caption, chart, table, width)


def panels(
    name: str,
    title: str,
    caption: str,
    layers: Sequence[alt.Chart | alt.LayerChart],
    table: pd.DataFrame,
    *,
    order: Sequence[str],
    axis_title: str,
    height: int,
    width: int = PANEL_WIDTH,
    columns: int = PANEL_COLUMNS,
    same_x: bool = True,
) -> Figure:
    """Layer charts over one table, a panel per value of its column `panel`, in the house style.

    Each has a y axis of its own.

    Args:
        name: file name of the figure.
        title: its title.
        caption: how to read it.
        layers: charts of a panel, without titles on their axes.
        table: its rows.
        order: the panels, the first at the top left.
        axis_title: what the axes are, said once above all panels.
        height: of a panel, pixels.
        width: of a panel in pictures, pixels.
        columns: panels beside one another, where there is room.
        same_x: whether panels share the scale of the x axis.
    """
    chart = (
        alt.layer(*layers, data=alt.NamedData(name=DATA), height=height)
        .facet(
            alt.Facet(
                "panel:N",
                sort=list(order),
                title=None,
                header=alt.Header(
                    labelAnchor="start", labelFontSize=12, labelPadding=4, labelColor=INK
                ),
            ),
            columns=min(columns, len(order)),
            spacing={"row": 56, "column": 36},
            bounds="flush",
        )
        .resolve_scale(x="shared" if same_x else "independent", y="independent")
        .resolve_axis(x="independent")
        .properties(
            title=alt.Title(axis_title, fontSize=12, fontWeight="normal", color=MUTED, offset=8)
        )
        .configure(**CONFIG)
    )
    return Figure(name, title, caption, chart, table, width)


def inline(table: pd.DataFrame, name: str) -> alt.InlineData:
    """Return a table as inline data; what is not a finite number becomes null."""
    return alt.InlineData(values=_values(table), name=name)


def count_axis(column: str, title: str, values: Sequence[float], *, margin: float = 1.25) -> alt.X:
    """Return a logarithmic x axis over a count such as parameters, labelled 100K, 1M, 1B."""
    low, high = min(values) / margin, max(values) * margin
    return alt.X(
        f"{column}:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=log_ticks(low, high), labelExpr=COUNT_LABEL, grid=False),
    )


def padded(values: Sequence[float], share: float = 0.06) -> list[float]:
    """Return a linear axis domain that leaves `share` of the range free on either side."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * share
    return [low - room, high + room]


def _values(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {str(key): _plain(value) for key, value in row.items()} for row in table.to_dict("records")
    ]


def _plain(value: Any) -> Any:
    if value is None or value is pd.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
