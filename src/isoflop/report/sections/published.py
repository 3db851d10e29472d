"""Our minima and models beside the published ones, both relative to the optimal baseline.

Of arXiv 2404.02258, figures 3 and 4.
"""

from __future__ import annotations

import altair as alt
import pandas as pd

from isoflop.notation import exponent
from isoflop.papers.mod import (
    COLUMNS,
    OURS,
    PUBLISHED,
    mod_figures,
    published_minima,
    published_points,
)
from isoflop.report import figure as draw
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.blocks import Pair, Row, Section, Table, number, table
from isoflop.report.sections.numbered_models import model_costs
from isoflop.report.theme import INK
from isoflop.report.words.prose import caption

_LOSS = "Loss / optimal baseline's"
_CROSS = "M-1,-1L1,1M-1,1L1,-1"
_COSTS = {
    "parameters": "Parameters",
    "flops_per_step": "FLOPs per step",
    "steps_per_second": "Steps per second",
}


def section(analysis: Analysis) -> Section | None:
    """Return both figures and the ratios; None where the study shares no variant with the paper."""
    drawn = []
    theirs = published_minima(analysis.study)
    if len(theirs):
        told = caption("published_minima", theirs["x_ratio"].isna().any())
        named = ("published-minima", "Minima beside the published ones", told)
        axis = "Optimal parameters / optimal baseline's"
        drawn.append(_beside(analysis, named, [our_minima(analysis), theirs], axis))
    theirs = published_points(analysis.study)
    if len(theirs):
        title = "Matching and optimal MoD beside the published ones"
        named = ("published-models", title, caption("published_models"))
        axis = "Forward FLOPs / optimal baseline's"
        drawn.append(_beside(analysis, named, [our_points(analysis), theirs], axis))
    if not drawn:
        return None
    ratios = [one for result in analysis.budgets for one in _ratios(analysis, result)]
    return Section("Beside the published figures", [Pair(drawn), *ratios])


def our_minima(analysis: Analysis) -> pd.DataFrame:
    """Return our minima over the baseline's, with the columns of the published ones."""
    rows = []
    for result in analysis.budgets:
        base = result.headline(analysis.baseline)
        for own in (result.headline(name) for name in result.matches):
            if base and base.loss and base.parameters and own and own.loss and own.parameters:
                where = f"{exponent(result.budget_flops)} FLOPs, {HEADLINE}"
                apart = 1 + (own.loss - base.loss) / base.loss
                rows.append((OURS, own.variant, where, own.parameters / base.parameters, apart))
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


def _ratios(analysis: Analysis, result: BudgetResult) -> list[Table]:
    """Return size and costs of Figure 3's models over model 1's, ours beside the published."""
    costs = model_costs(analysis, result.figure3)
    if costs.empty or 1 not in set(costs["number"]):
        return []
    published = mod_figures()["models"].set_index("number")[[*_COSTS]]
    ours = costs.set_index("number")[[*_COSTS]]
    here, theirs = (one / one.loc[1] for one in (ours, published))
    rows: list[Row] = []
    for model in here.index:
        cells: dict[str, str] = {}
        for column, title in _COSTS.items():
            cells[f"{title}|#here"] = number(here.loc[model, column], ".2f")
            cells[f"{title}|#published"] = number(theirs.loc[model, column], ".2f")
        rows.append({"#No.": str(model), **cells})
    return [table(caption("published_costs", result), rows)]


def _beside(
    analysis: Analysis, named: tuple[str, str, str], parts: list[pd.DataFrame], x_title: str
) -> draw.Figure:
    """Draw our points as discs and the published ones as crosses, on axes relative to (1, 1)."""
    shown = pd.concat([part for part in parts if len(part)], ignore_index=True)
    losses, ratios = [*shown["loss_ratio"], 1.0], [*shown["x_ratio"].dropna(), 1.0]
    base = alt.Chart().encode(
        y=draw.linear_axis(alt.Y, "loss_ratio", _LOSS, losses, share=0.12, tickCount=5),
        color=analysis.style.colour(),
        tooltip=draw.told("variant source what x_ratio:.3f loss_ratio:.4f"),
    )
    legend = alt.Legend(
        orient="bottom", direction="vertical", symbolFillColor=INK, symbolStrokeColor=INK
    )
    sources = alt.Scale(domain=[OURS, PUBLISHED], range=["circle", _CROSS])
    layers = [
        draw.rule(1.0, x=x_title),
        draw.rule(1.0, y=_LOSS),
        base.transform_filter("!isValid(datum.x_ratio)").mark_rule(strokeDash=[2, 4]),
        base.transform_filter("isValid(datum.x_ratio)")
        .mark_point(opacity=1, strokeWidth=2, size=90)
        .encode(
            x=draw.log_axis("x_ratio", x_title, ratios, 1.25),
            fill=analysis.style.fill(),
            shape=alt.Shape("source:N", scale=sources, legend=legend),
        ),
    ]
    return draw.figure(*named, layers, shown, height=280, width=draw.HALF_WIDTH)
