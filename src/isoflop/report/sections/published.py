"""Our minima and models beside the published ones, both relative to the optimal baseline.

Of arXiv 2404.02258, figures 3 and 4.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.notation import exponent, scientific
from isoflop.papers.beside import COLUMNS, OURS, PUBLISHED, published_minima, published_points
from isoflop.papers.mod import mod_figures
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.blocks import NONE, Block, Pair, Section, Table, columns
from isoflop.report.figure import HALF_WIDTH, Figure, figure, padded, rule, tooltips
from isoflop.report.sections.numbered_models import model_costs
from isoflop.report.theme import INK

_LOSS_TITLE = "Loss / optimal baseline's"
_CROSS = "M-1,-1L1,1M-1,1L1,-1"
_TICKS = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10)
_NOTE = (
    "Crosses: values read off the published figures (arXiv 2404.02258), approximate, of models "
    "with 50M to 3B parameters on other data. Discs: this study. Both are relative to their "
    "own optimal baseline, which is at (1, 1)."
)


def section(analysis: Analysis) -> Section | None:
    """Return both figures and the ratios; None where the study shares no variant with the paper."""
    drawn = figures(analysis)
    if not drawn:
        return None
    blocks: list[Block] = [Pair(drawn)]
    for result in analysis.budgets:
        rows = ratio_rows(analysis, result)
        if rows:
            blocks.append(_ratios(result, rows))
    return Section("Beside the published figures", blocks)


def figures(analysis: Analysis) -> list[Figure]:
    """Draw minima and models beside the published ones."""
    found = []
    theirs, ours = published_minima(analysis.study), our_minima(analysis)
    if len(theirs):
        dotted = (
            " A dotted line is a published loss whose size the figure does not tell."
            if theirs["x_ratio"].isna().any()
            else ""
        )
        found.append(
            _beside(
                analysis,
                ("published-minima", "Minima beside the published ones"),
                _joined(ours, theirs),
                "Optimal parameters / optimal baseline's",
                _NOTE + dotted,
            )
        )
    theirs, ours = published_points(analysis.study), our_points(analysis)
    if len(theirs):
        found.append(
            _beside(
                analysis,
                ("published-models", "Matching and optimal MoD beside the published ones"),
                _joined(ours, theirs),
                "Forward FLOPs / optimal baseline's",
                _NOTE + " The upper point of each pair is the cheapest routed model with no more "
                "than the baseline's loss, the lower one the optimal routed model.",
            )
        )
    return found


def our_minima(analysis: Analysis) -> pd.DataFrame:
    """Return our minima over the baseline's, with the columns of the published ones."""
    rows = [
        (
            OURS,
            name,
            f"{exponent(result.budget_flops)} FLOPs, {HEADLINE}",
            comparison.parameter_ratio,
            1 + comparison.relative_difference,
        )
        for result in analysis.budgets
        for name, comparison in result.comparisons.items()
        if comparison.relative_difference is not None
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def our_points(analysis: Analysis) -> pd.DataFrame:
    """Return Figure 4's models 3 and 4 over model 1, with the columns of the published points."""
    words = {3: "matching mod", 4: "optimal mod"}
    rows = [
        (
            OURS,
            one.model.variant,
            f"{exponent(result.budget_flops)} FLOPs, {words[one.number]}",
            one.model.forward_flops / result.reference.forward_flops,
            one.model.loss / result.reference.loss,
        )
        for result in analysis.budgets
        for one in result.figure4
        if one.number in words and one.model and result.reference and result.reference_bracketed
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def ratio_rows(analysis: Analysis, result: BudgetResult) -> list[list[str]]:
    """Return size and costs of Figure 3's models over model 1's, ours beside the published."""
    costs = model_costs(analysis, result.figure3)
    if costs.empty or 1 not in set(costs["number"]):
        return []
    ours = costs.set_index("number")
    published = {model.number: model for model in mod_figures().figure3.models}
    rows = []
    for number in ours.index:
        cells = [str(number)]
        for column in ("parameters", "flops_per_step", "steps_per_second"):
            here = ours.loc[number, column] / ours.loc[1, column]
            theirs = getattr(published[number], column) / getattr(published[1], column)
            cells += [NONE if pd.isna(here) else f"{here:.2f}", f"{theirs:.2f}"]
        rows.append(cells)
    return rows


def _ratios(result: BudgetResult, rows: list[list[str]]) -> Table:
    return Table(
        f"Figure 3's models relative to model 1: this study at {scientific(result.budget_flops)} "
        "FLOPs, and published (digitised, approximate; 6\u00d710\u00b9\u2078 FLOPs, TPUv5).",
        columns("#No.", *("#here", "#published") * 3),
        rows,
        groups=[("", 1), ("Parameters", 2), ("FLOPs per step", 2), ("Steps per second", 2)],
    )


def _joined(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([part for part in (ours, theirs) if len(part)], ignore_index=True)


def _beside(
    analysis: Analysis, named: tuple[str, str], table: pd.DataFrame, x_title: str, caption: str
) -> Figure:
    """Draw our points as discs and the published ones as crosses, on axes relative to (1, 1)."""
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
    tooltip = tooltips(
        ("variant:N", "Variant"),
        ("source:N", "Source"),
        ("what:N", "Point"),
        ("x_ratio:Q", x_title, ".3f"),
        ("loss_ratio:Q", "Loss ratio", ".4f"),
    )
    legend = alt.Legend(
        orient="bottom", direction="vertical", symbolFillColor=INK, symbolStrokeColor=INK
    )
    sources = [OURS, PUBLISHED]
    base = alt.Chart().encode(y=y, color=analysis.style.colour(), tooltip=tooltip)
    layers = [
        rule(1.0, x=x_title),
        rule(1.0, y=_LOSS_TITLE),
        base.transform_filter("!isValid(datum.x_ratio)").mark_rule(strokeDash=[2, 4]),
        base.transform_filter("isValid(datum.x_ratio)")
        .mark_point(opacity=1, strokeWidth=2, size=90)
        .encode(
            x=x,
            fill=analysis.style.fill(),
            shape=alt.Shape(
                "source:N", scale=alt.Scale(domain=sources, range=["circle", _CROSS]), legend=legend
            ),
        ),
    ]
    return figure(*named, caption, layers, table, height=280, width=HALF_WIDTH)
