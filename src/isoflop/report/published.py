"""Our minima and models beside the published ones, both relative to the optimal baseline."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from isoflop.config import RandomK, Study, TopK, Variant
from isoflop.reference import PublishedMinimum, mod_figures
from isoflop.report.figure import HALF_WIDTH, Figure, figure, inline, padded
from isoflop.report.theme import INK, MUTED, Style

OURS = "this study"
PUBLISHED = "published (digitised, approximate)"
COLUMNS = ["source", "variant", "what", "x_ratio", "loss_ratio"]

_LOSS_TITLE = "Loss / optimal baseline's"
_CROSS = "M-1,-1L1,1M-1,1L1,-1"
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)


def counterparts(study: Study) -> dict[str, str]:
    """Return the study's name for each published variant that it has as well."""
    found = {"baseline": study.baseline_variant.name}
    for variant in study.variants:
        for published in _published_names(variant):
            found.setdefault(published, variant.name)
    return found


def published_minima(study: Study) -> pd.DataFrame:
    """Return the published minima of the study's routed variants relative to the baseline's.

    Columns as `COLUMNS`; `x_ratio` is of parameters, missing where the figure does not tell it.
    """
    known = counterparts(study)
    rows = []
    for label, minima in (
        ("Figure 3", mod_figures().figure3.minima),
        ("Figure 4", mod_figures().figure4.minima),
    ):
        baselines = {m.budget_flops: m for m in minima if m.variant == "baseline"}
        rows += [
            (
                PUBLISHED,
                known[minimum.variant],
                f"{label}, {minimum.budget_flops:.0e}".replace("+", ""),
                _size_ratio(minimum, baselines[minimum.budget_flops]),
                minimum.loss / baselines[minimum.budget_flops].loss,
            )
            for minimum in minima
            if minimum.variant in known and minimum.variant != "baseline"
        ]
    return pd.DataFrame(rows, columns=COLUMNS)


def published_points(study: Study) -> pd.DataFrame:
    """Return the published points of Figure 4, right; `x_ratio` is of forward FLOPs."""
    known = counterparts(study)
    rows = [
        (PUBLISHED, known["mod"], point.name.replace("_", " "), point.forward_flops, point.loss)
        for point in mod_figures().figure4.points
        if "mod" in known and point.name != "optimal_baseline"
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def beside_published(
    name: str, title: str, table: pd.DataFrame, style: Style, x_title: str, caption: str
) -> Figure:
    """Draw our points as discs and the published ones as crosses, on axes relative to the baseline.

    Args:
        name: file name of the figure.
        title: its title.
        table: columns as `COLUMNS`, with `source` either `OURS` or `PUBLISHED`.
        style: colours of the variants.
        x_title: title of the x axis.
        caption: how to read the figure.
    """
    known = [*table["x_ratio"].dropna(), 1.0]
    low, high = min(known) / 1.25, max(known) * 1.25
    x = alt.X(
        "x_ratio:Q",
        title=x_title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(
            values=[tick for tick in _TICKS if low <= tick <= high], format="~g", grid=False
        ),
    )
    y = alt.Y(
        "loss_ratio:Q",
        title=_LOSS_TITLE,
        scale=alt.Scale(domain=padded([*table["loss_ratio"], 1.0], 0.12), zero=False, nice=False),
        axis=alt.Axis(tickCount=5),
    )
    tooltip = [
        alt.Tooltip("variant:N", title="Variant"),
        alt.Tooltip("source:N", title="Source"),
        alt.Tooltip("what:N", title="Point"),
        alt.Tooltip("x_ratio:Q", title=x_title, format=".3f"),
        alt.Tooltip("loss_ratio:Q", title="Loss ratio", format=".4f"),
    ]
    legend = alt.Legend(
        orient="bottom", direction="vertical", symbolFillColor=INK, symbolStrokeColor=INK
    )
    sources = [OURS, PUBLISHED]
    base = alt.Chart().encode(y=y, color=style.colour(), tooltip=tooltip)
    one = alt.Chart(inline(pd.DataFrame({"one": [1.0]}), "reference"))
    rule: dict[str, Any] = {"color": MUTED, "strokeWidth": 1}
    layers = [
        one.mark_rule(**rule).encode(x=alt.X("one:Q", title=x_title)),
        one.mark_rule(**rule).encode(y=alt.Y("one:Q", title=_LOSS_TITLE)),
        base.transform_filter("!isValid(datum.x_ratio)").mark_rule(strokeDash=[2, 4]),
        base.transform_filter("isValid(datum.x_ratio)")
        .mark_point(opacity=1, strokeWidth=2, size=90)
        .encode(
            x=x,
            fill=style.fill(),
            shape=alt.Shape(
                "source:N",
                scale=alt.Scale(domain=sources, range=["circle", _CROSS]),
                legend=legend,
            ),
        ),
    ]
    return figure(name, title, caption, layers, table, height=280, width=HALF_WIDTH)


def _published_names(variant: Variant) -> tuple[str, ...]:
    match variant.depth:
        case TopK(capacity=0.125, every=2, blocks=None):
            return ("mod_12.5_every_2", "mod")
        case TopK(capacity=0.5, every=2, blocks=None):
            return ("mod_50_every_2",)
        case RandomK(capacity=0.5, every=2, blocks=None):
            return ("mod_50_random_every_2",)
        case _:
            return ()


def _size_ratio(minimum: PublishedMinimum, baseline: PublishedMinimum) -> float | None:
    if minimum.parameters is None or baseline.parameters is None:
        return None
    return minimum.parameters / baseline.parameters
