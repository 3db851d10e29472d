"""How well the fits fit: residuals of the surface, and how far the estimators agree."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from isoflop.report.figure import (
    HALF_WIDTH,
    SIGNED_LABEL,
    Figure,
    count_axis,
    figure,
    inline,
    padded,
)
from isoflop.report.theme import INK, MUTED, SHAPES, Style, fading

_ROW_STEP = 17
"""Height of one estimator's interval; a curve has one more for the gap to the next."""
FARTHEST = 3.0
"""How many median intervals an axis reaches beyond the outermost mark, at most."""
_RATIO_TICKS = (0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1, 1.25, 1.6, 2, 3, 5, 10)
_ROW_LABEL = "split(datum.label, '\\n')"


def surface_residuals(
    name: str,
    title: str,
    table: pd.DataFrame,
    style: Style,
    *,
    delta: float,
    domain: Sequence[float],
    caption: str,
) -> Figure:
    """Draw log measured less log fitted loss against parameters, at one budget.

    Args:
        name: file name of the figure.
        title: its title.
        table: columns `row` (run, mean), `variant`, `parameters`, `seed`, `loss`, `fitted` and
            `residual`.
        style: colours and shapes of the variants.
        delta: of the Huber loss; the band within which residuals count squared.
        domain: ends of the residual axis, the same at every budget.
        caption: how to read the figure.
    """
    y_title = "Log loss, measured less fitted"
    x = count_axis("parameters", "Parameters", list(table["parameters"]))
    y = alt.Y(
        "residual:Q",
        title=y_title,
        scale=alt.Scale(domain=list(domain), nice=False, zero=False),
        axis=alt.Axis(tickCount=6, labelExpr=SIGNED_LABEL),
    )
    band = alt.Chart(
        inline(pd.DataFrame({"low": [-delta], "high": [delta], "zero": [0.0]}), "band")
    )
    within = band.mark_rect(color="#e9e9e4").encode(y=alt.Y("low:Q", title=y_title), y2="high:Q")
    zero = band.mark_rule(color=MUTED, strokeWidth=1).encode(y=alt.Y("zero:Q", title=y_title))
    base = alt.Chart().encode(x=x, y=y, color=style.colour(), opacity=fading())
    lines = base.transform_filter("datum.row === 'mean'").mark_line(
        strokeWidth=1.5, strokeOpacity=0.85
    )
    runs = (
        base.transform_filter("datum.row === 'run'")
        .mark_point(filled=True, size=30, fillOpacity=0.6)
        .encode(
            shape=style.shape(),
            tooltip=[
                alt.Tooltip("variant:N", title="Variant"),
                alt.Tooltip("parameters:Q", title="Parameters", format=",.0f"),
                alt.Tooltip("seed:Q", title="Seed"),
                alt.Tooltip("loss:Q", title="Measured", format=".4f"),
                alt.Tooltip("fitted:Q", title="Fitted", format=".4f"),
                alt.Tooltip("residual:Q", title="Log residual", format="+.4f"),
            ],
        )
    )
    return figure(
        name, title, caption, [within, zero, lines, runs], table, height=280, pickable=True
    )


def agreement(
    name: str,
    title: str,
    table: pd.DataFrame,
    style: Style,
    *,
    column: str,
    axis: str,
    logarithmic: bool,
    caption: str,
) -> Figure:
    """Draw the minima of every curve by every estimator, relative to the curve's median.

    Args:
        name: file name of the figure.
        title: its title.
        table: as `fit_tables.estimator_minima` makes it, refused minima too.
        style: colours of the variants.
        column: of the value; its ends are in the columns named `column` and `_low`, `_high`.
        axis: title of the value's axis.
        logarithmic: whether it is a ratio.
        caption: how to read the figure.
    """
    estimators = table["estimator"].drop_duplicates().tolist()
    curves = table["curve"].drop_duplicates().tolist()
    middle = 1.0 if logarithmic else 0.0
    x = alt.X(
        f"{column}:Q",
        title=axis,
        scale=alt.Scale(
            type="log" if logarithmic else "linear",
            domain=_domain(table, column, logarithmic=logarithmic),
            nice=False,
            zero=alt.Undefined if logarithmic else False,
        ),
        axis=alt.Axis(values=list(_RATIO_TICKS), format="~g")
        if logarithmic
        else alt.Axis(tickCount=5, labelExpr=SIGNED_LABEL),
    )
    rows = alt.Y(
        "curve:N",
        title=None,
        sort=curves,
        scale=alt.Scale(paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(
            labelExpr=_ROW_LABEL, labelLimit=110, ticks=False, domain=False, labelPadding=8
        ),
    )
    offset = alt.YOffset("estimator:N", sort=estimators, scale=alt.Scale(domain=estimators))
    shape = alt.Shape(
        "estimator:N",
        scale=alt.Scale(domain=estimators, range=list(SHAPES[: len(estimators)])),
        legend=alt.Legend(
            columns=alt.ExprRef("width < 420 ? 2 : 4"), symbolFillColor=INK, symbolStrokeColor=INK
        ),
    )
    ends_tip = f"{column}_low", f"{column}_high"
    tooltip = [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip("budget_flops:Q", title="Budget, FLOPs", format="~e"),
        alt.Tooltip("estimator:N", title="Estimator"),
        alt.Tooltip("status:N", title="Ended"),
        alt.Tooltip("parameters:Q", title="Parameters", format=",.0f"),
        alt.Tooltip("loss:Q", title="Loss", format=".4f"),
    ]
    reference = alt.Chart(inline(pd.DataFrame({"middle": [middle]}), "reference"))
    rule = reference.mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X("middle:Q", title=axis))
    base = alt.Chart().encode(y=rows, yOffset=offset, color=style.colour(legend=False))
    bars = (
        base.transform_filter(f"isValid(datum.{ends_tip[0]})")
        .mark_rule(strokeWidth=1.8, strokeOpacity=0.75, clip=True)
        .encode(x=alt.X(f"{ends_tip[0]}:Q", title=axis), x2=f"{ends_tip[1]}:Q")
    )
    points = (
        base.transform_filter(f"isValid(datum.{column})")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, shape=shape, tooltip=tooltip)
    )
    refused = (
        base.transform_filter(f"!isValid(datum.{column})")
        .mark_text(text="\N{MULTIPLICATION SIGN} refused", fontSize=10, align="left", dx=4)
        .encode(x=alt.value(0), tooltip=tooltip)
    )
    height = _ROW_STEP * len(curves) * (len(estimators) + 1)
    return figure(
        name, title, caption, [rule, bars, points, refused], table, height=height, width=HALF_WIDTH
    )


def _domain(table: pd.DataFrame, column: str, *, logarithmic: bool) -> list[float]:
    """Return an axis that holds every mark, and of the intervals what is not far beyond."""
    values = table[[column, f"{column}_low", f"{column}_high"]].to_numpy(dtype="float64")
    if logarithmic:
        values = np.log(values)
    marks, ends = values[:, 0], values[:, 1:]
    marks = marks[np.isfinite(marks)]
    reach = np.abs(ends - values[:, :1])
    far = FARTHEST * float(np.nanmedian(reach)) if np.isfinite(reach).any() else 0.0
    low, high = float(marks.min()), float(marks.max())
    inside = ends[np.isfinite(ends)].clip(low - far, high + far)
    domain = padded([*inside.tolist(), low, high, 0.0])
    return np.exp(domain).tolist() if logarithmic else domain
