"""How well the fits fit: residuals of the surface, and how far the estimators agree."""

from __future__ import annotations

from itertools import product

import altair as alt
import numpy as np
import pandas as pd

from isoflop.fit.surfaces.surface import Surface
from isoflop.fit.tables.frame import curve_rows
from isoflop.notation import exponent
from isoflop.report import blocks
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Pair, Section
from isoflop.report.theme import INK, PICKED, SHAPES, fading, legend_columns
from isoflop.report.words.answers import ESTIMATOR_WORDS
from isoflop.report.words.prose import caption

_ROW_STEP = 17
"""Height of one estimator's interval; a curve has one more for the gap to the next."""
_LOSS, _SIZE = "Loss less the estimators' median, nats", "Parameters / the estimators' median"

FARTHEST = 3.0
"""How many median intervals an axis reaches beyond the outermost mark, at most."""


OTHERS = "As the figure before, on the same axis."


def section(analysis: Analysis) -> Section | None:
    """Return residuals by budget and the agreement of the estimators; None without either."""
    left, agreed = residual_panels(analysis), agreement_figures(analysis)
    if not left and not agreed:
        return None
    return Section("How well the fits fit", [*left, Pair(agreed)])


def residual_panels(analysis: Analysis) -> list[draw.Panel]:
    """Draw what the surfaces leave, a figure per budget; none where no surface was fitted."""
    fitted = {name: fit.surface for name, fit in analysis.variant_fits.items() if fit.surface}
    found = [(one, residuals(analysis, one)) for one in analysis.budgets]
    drawn = [(one, table) for one, table in found if len(table)]
    if not drawn:
        why = caption("no_surfaces", fitted)
        return [draw.Absent("Residuals of the loss surface", why)] if fitted else []
    delta = next(fit.delta for fit in fitted.values() if fit.delta is not None)
    spread = [*pd.concat([table["residual"] for _, table in drawn]), -2 * delta, 2 * delta]
    return [
        draw.figure(
            f"surface-residuals-{exponent(one.budget_flops)}",
            f"Residuals of the loss surface, {one.told}",
            caption("residuals", fitted, delta) if one is drawn[0][0] else OTHERS,
            _residual_layers(analysis, table, delta, spread),
            table,
            height=280,
        )
        for one, table in drawn
    ]


def residuals(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return log measured less log fitted loss of each fitted run of a budget, surface by Huber.

    Columns: `row` (run, or mean over the seeds of a size), `variant`, `parameters`, `tokens`,
    `seed`, `loss`, `fitted`, `residual`. Variants without a surface are absent.
    """
    columns = ["row", "variant", "parameters", "tokens", "seed", "loss", "fitted", "residual"]
    parts = []
    for name, fit in analysis.variant_fits.items():
        own = curve_rows(analysis.table, name, result.budget_flops)
        known = {of: getattr(fit.surface, of, None) for of in Surface.model_fields}
        if None in known.values() or own.empty:
            continue
        surface = Surface(**{of: one.value for of, one in known.items() if one})
        runs = own[["variant", "parameters", "tokens", "seed", "loss"]].assign(
            row="run",
            seed=own["seed"].astype("Int64"),
            fitted=surface.loss(own["parameters"].to_numpy(), own["tokens"].to_numpy()),
            residual=lambda runs: np.log(runs["loss"] / runs["fitted"]),
        )
        sizes = runs.groupby(["variant", "parameters", "tokens"], as_index=False)
        means = sizes[["loss", "fitted", "residual"]].mean().assign(row="mean")
        parts += [runs, means]
    if not parts:
        return pd.DataFrame(columns=columns)
    return pd.concat(parts, ignore_index=True)[columns]


def _residual_layers(
    analysis: Analysis, table: pd.DataFrame, band: float, spread: list[float]
) -> list[alt.Chart]:
    """Draw log measured less log fitted loss; the grey band is where residuals count squared."""
    title = "Log loss, measured less fitted"
    base = alt.Chart().encode(
        x=draw.count_axis("parameters", "Parameters", list(table["parameters"])),
        y=draw.linear_axis(alt.Y, "residual", title, spread, labelExpr=draw.SIGNED_LABEL),
        color=analysis.style.colour(),
        opacity=fading(),
    )
    tooltip = draw.told("variant parameters:,.0f seed loss:.4f fitted:.4f residual:+.4f")
    grey, zero = draw.zero_band(band, title)
    return [
        grey.add_params(PICKED),
        zero,
        draw.of_row(base, "mean").mark_line(strokeWidth=1.5, strokeOpacity=0.85),
        draw.of_row(base, "run")
        .mark_point(filled=True, size=30, fillOpacity=0.6)
        .encode(shape=analysis.style.shape(), tooltip=tooltip),
    ]


def agreement_figures(analysis: Analysis) -> list[draw.Figure]:
    """Draw the minima of every estimator; none while no curve has one."""
    table = estimator_minima(analysis) if analysis.budgets else pd.DataFrame({"loss": []})
    if table["loss"].isna().all():
        return []
    refused = bool(table["loss"].isna().any())
    losses = shown_range(table, "loss_difference")
    ratios = table.filter(like="parameters_ratio").apply(np.log)
    sizes = np.exp(shown_range(ratios, "parameters_ratio"))
    apart = draw.linear_axis(
        *(alt.X, "loss_difference", _LOSS, losses), tickCount=5, labelExpr=draw.SIGNED_LABEL
    )
    room = (max(sizes) / min(sizes)) ** 0.06
    ratio = draw.log_axis("parameters_ratio", _SIZE, sizes.tolist(), room, grid=True)
    height = _ROW_STEP * table["curve"].nunique() * (table["estimator"].nunique() + 1)
    drawn = []
    for what, column, middle, axis in (
        ("Loss", "loss_difference", 0.0, apart),
        ("Size", "parameters_ratio", 1.0, ratio),
    ):
        name = "estimator-losses" if what == "Loss" else "estimator-sizes"
        told = caption("agreement", middle, refused)
        layers = _agreement(analysis, table, column, middle, axis)
        named = (name, f"{what} of the minima by estimator", told)
        drawn.append(draw.figure(*named, layers, table, height=height, width=draw.HALF_WIDTH))
    return drawn


def estimator_minima(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget, variant and estimator: the minimum with the ends of its intervals.

    `curve` names variant and budget; `parameters` and `loss` are those of the minimum, with `_low`
    and `_high`, the ends of its intervals, and beside each of these its `parameters_ratio` or
    `loss_difference` to the median of the curve's estimators. Refused minima have a status and no
    numbers.
    """
    several, rows = len(analysis.budgets) > 1, []
    for (result, name), estimator in product(
        product(analysis.budgets, analysis.names), analysis.estimators
    ):
        one = result.minima.get((name, estimator))
        if one is None:
            continue
        size, loss = (None, None) if one.loss is None else one.estimates()
        rows.append(
            {
                "variant": name,
                "budget_flops": result.budget_flops,
                "curve": f"{name}\n{exponent(result.budget_flops)} FLOPs" if several else name,
                "estimator": ESTIMATOR_WORDS[estimator],
                "status": one.status,
                **blocks.with_columns("parameters", size),
                **blocks.with_columns("loss", loss),
            }
        )
    table = pd.DataFrame(rows)
    numbers = [column for column in table if str(column).startswith(("parameters", "loss"))]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    curves = table.groupby(["variant", "budget_flops"])
    medians = curves[["parameters", "loss"]].transform("median")
    for end in ("", "_low", "_high"):
        table[f"parameters_ratio{end}"] = table[f"parameters{end}"] / medians["parameters"]
        table[f"loss_difference{end}"] = table[f"loss{end}"] - medians["loss"]
    return table


def _agreement(
    analysis: Analysis, table: pd.DataFrame, column: str, middle: float, x: alt.X
) -> list[alt.Chart]:
    """Draw a column of `estimator_minima` of every curve, relative to the curve's median."""
    title = _LOSS if column == "loss_difference" else _SIZE
    estimators = table["estimator"].drop_duplicates().tolist()
    curves = table["curve"].drop_duplicates().tolist()
    shapes = alt.Scale(domain=estimators, range=list(SHAPES[: len(estimators)]))
    legend = alt.Legend(columns=legend_columns(), symbolFillColor=INK, symbolStrokeColor=INK)
    base = alt.Chart().encode(
        y=draw.names_axis("curve", curves, paddingInner=0.2, paddingOuter=0.1),
        yOffset=alt.YOffset("estimator:N", sort=estimators, scale=alt.Scale(domain=estimators)),
        color=analysis.style.colour(legend=False),
        tooltip=draw.told("variant budget_flops:~e estimator status parameters:,.0f loss:.4f"),
    )
    return [
        draw.rule(middle, x=title),
        base.transform_filter(f"isValid(datum.{column}_low)")
        .mark_rule(strokeWidth=1.8, strokeOpacity=0.75, clip=True)
        .encode(x=alt.X(f"{column}_low:Q", title=title), x2=alt.X2(f"{column}_high:Q")),
        base.transform_filter(f"isValid(datum.{column})")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, shape=alt.Shape("estimator:N", scale=shapes, legend=legend)),
        base.transform_filter(f"!isValid(datum.{column})")
        .mark_text(text="\N{MULTIPLICATION SIGN} refused", fontSize=10, align="left", dx=4)
        .encode(x=alt.value(0)),
    ]


def shown_range(table: pd.DataFrame, column: str) -> list[float]:
    """Return what an axis must hold: every mark, and of the intervals what is not far beyond."""
    marks, ends = table[column], table[[f"{column}_low", f"{column}_high"]]
    far = FARTHEST * ends.sub(marks, axis=0).abs().stack().median()
    inside = ends.clip(marks.min() - far, marks.max() + far)
    return [0.0, *pd.concat([marks, inside.stack()]).dropna()]
