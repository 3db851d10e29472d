"""How well the fits fit: residuals of the surface, and how far the estimators agree."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from isoflop.fit.results import FittedSurface
from isoflop.fit.surfaces.surface import Surface
from isoflop.notation import exponent, percent, scientific
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Pair, Section
from isoflop.report.figure import (
    HALF_WIDTH,
    SIGNED_LABEL,
    Absent,
    Figure,
    Panel,
    count_axis,
    figure,
    padded,
    rule,
    tooltips,
    zero_band,
)
from isoflop.report.theme import INK, PICKED, SHAPES, fading
from isoflop.report.words.results import ESTIMATOR_WORDS

_ROW_STEP = 17
"""Height of one estimator's interval; a curve has one more for the gap to the next."""
FARTHEST = 3.0
"""How many median intervals an axis reaches beyond the outermost mark, at most."""
_RATIO_TICKS = (0.1, 0.2, 0.3, 0.5, 0.6, 0.8, 1, 1.25, 1.6, 2, 3, 5, 10)
_ROW_LABEL = "split(datum.label, '\\n')"


_AGREEMENT = {
    "loss_difference": (
        "estimator-losses",
        "Loss of the minima by estimator",
        "Loss less the estimators' median, nats",
    ),
    "parameters_ratio": (
        "estimator-sizes",
        "Size of the minima by estimator",
        "Parameters / the estimators' median",
    ),
}
"""Name, title and axis of a figure, by column of its table."""

MINIMA_COLUMNS = {
    "variant": "str",
    "budget_flops": "float64",
    "curve": "str",
    "estimator": "str",
    "status": "str",
    "parameters": "float64",
    "parameters_low": "float64",
    "parameters_high": "float64",
    "loss": "float64",
    "loss_low": "float64",
    "loss_high": "float64",
}


def section(analysis: Analysis) -> Section | None:
    """Return residuals by budget and the agreement of the estimators; None without either."""
    left, agreed = residual_panels(analysis), agreement_figures(analysis)
    if not left and not agreed:
        return None
    return Section("How well the fits fit", [*left, Pair(agreed)])


def residual_panels(analysis: Analysis) -> list[Panel]:
    """Draw what the surfaces leave, a figure per budget; none where no surface was fitted."""
    found = [(one, residuals(analysis, one)) for one in analysis.budgets]
    drawn = [(one, table) for one, table in found if len(table)]
    fitted = {name: fit.surface for name, fit in analysis.variant_fits.items() if fit.surface}
    without = [f"{name}: {fit.message}." for name, fit in fitted.items() if fit.E is None]
    if not drawn:
        if not fitted:
            return []
        why = "No variant has a surface. " + " ".join(without)
        return [Absent("Residuals of the loss surface", why)]
    delta = next(fit.delta for fit in fitted.values() if fit.delta is not None)
    spread = pd.concat([table["residual"] for _, table in drawn])
    domain = padded([*spread, -2 * delta, 2 * delta])
    fits = "; ".join(
        f"{name} {fit.status.replace('_', ' ')}, {percent(fit.residual, 2)}"
        for name, fit in fitted.items()
        if fit.residual is not None
    )
    caption = (
        "What L = E + A/N^alpha + B/D^beta, fitted by Huber loss to all runs of a variant, leaves: "
        "above zero a run is worse than its surface says. Points are runs, lines join the means "
        "over seeds; a line that bends is a shape that the surface lacks. Within the grey band "
        f"(delta, {delta:g}) a residual counts squared, outside linearly. How each fit ended, and "
        f"its residuals' root mean square as a share of the loss: {fits}."
    )
    if without:
        caption += " Without a surface: " + " ".join(without)
    return [
        _residuals(
            analysis,
            one,
            table,
            band=delta,
            domain=domain,
            caption=caption if one is drawn[0][0] else "As the figure before, on the same axis.",
        )
        for one, table in drawn
    ]


def agreement_figures(analysis: Analysis) -> list[Figure]:
    """Draw the minima of every estimator; none while no curve has one."""
    table = estimator_minima(analysis)
    if table["loss"].isna().all():
        return []
    caption = (
        "A row per curve, a mark per estimator, with 95% intervals; zero is the median of the "
        "curve's estimators. Marks that lie apart by more than their intervals show a systematic "
        "error that no interval holds. Intervals far wider than most are cut at the edge."
    )
    if table["loss"].isna().any():
        caption += " Refused minima have no mark; the table of minima says why."
    return [
        _agreement(analysis, "loss_difference", table, caption),
        _agreement(analysis, "parameters_ratio", table, caption.replace("zero is", "one is")),
    ]


def estimator_minima(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget, variant and estimator: the minimum with the ends of its intervals.

    Columns: `MINIMA_COLUMNS`, where `curve` names variant and budget, and of each curve the median
    of its estimators stands beside: `parameters_ratio` and `loss_difference` with their ends `_low`
    and `_high` are relative to it. Refused minima have a status and no numbers.
    """
    several = len(analysis.budgets) > 1
    rows = []
    for result in analysis.budgets:
        for variant in analysis.study.variants:
            for estimator in analysis.estimators:
                one = result.minima.get((variant.name, estimator))
                if one is None:
                    continue
                interval = one.interval
                at = f"\n{exponent(result.budget_flops)} FLOPs" if several else ""
                rows.append(
                    (
                        variant.name,
                        result.budget_flops,
                        f"{variant.name}{at}",
                        ESTIMATOR_WORDS[estimator],
                        one.status,
                        one.parameters,
                        interval.parameters_low if interval else None,
                        interval.parameters_high if interval else None,
                        one.loss,
                        interval.low if interval else None,
                        interval.high if interval else None,
                    )
                )
    table = pd.DataFrame(rows, columns=list(MINIMA_COLUMNS)).astype(MINIMA_COLUMNS)
    curves = table.groupby(["variant", "budget_flops"])
    sizes = curves["parameters"].transform("median")
    losses = curves["loss"].transform("median")
    for end in ("", "_low", "_high"):
        table[f"parameters_ratio{end}"] = table[f"parameters{end}"] / sizes
        table[f"loss_difference{end}"] = table[f"loss{end}"] - losses
    return table


def residuals(analysis: Analysis, result: BudgetResult) -> pd.DataFrame:
    """Return log measured less log fitted loss of each fitted run of a budget, surface by Huber.

    Columns: `row` (run, or mean over the seeds of a size), `variant`, `parameters`, `tokens`,
    `seed`, `loss`, `fitted`, `residual`. Variants without a surface are absent.
    """
    table = analysis.table
    here = table[
        (table["state"] == "finished")
        & table["on_ladder"]
        & (table["budget_flops"] == result.budget_flops)
    ]
    parts = []
    for variant in analysis.study.variants:
        fit = analysis.fits.variants.get(variant.name) if analysis.fits else None
        surface = surface_of(fit.surface) if fit and fit.surface else None
        own = here[here["variant"] == variant.name]
        if surface is None or own.empty:
            continue
        fitted = surface.loss(own["parameters"].to_numpy(), own["tokens"].to_numpy())
        runs = own[["variant", "parameters", "tokens", "seed", "loss"]].assign(
            row="run", fitted=fitted, residual=np.log(own["loss"].to_numpy() / fitted)
        )
        means = (
            runs.groupby(["variant", "parameters", "tokens"], as_index=False)
            .agg(loss=("loss", "mean"), fitted=("fitted", "first"), residual=("residual", "mean"))
            .assign(row="mean", seed=None)
        )
        parts += [runs, means]
    columns = ["row", "variant", "parameters", "tokens", "seed", "loss", "fitted", "residual"]
    if not parts:
        return pd.DataFrame(columns=columns)
    joined = pd.concat([part.astype({"seed": "Int64"}) for part in parts], ignore_index=True)
    return joined[columns]


def surface_of(fit: FittedSurface) -> Surface | None:
    """Return the surface of a fit; None where it has no coefficients."""
    known = {
        name: getattr(fit, name).value
        for name in Surface.model_fields
        if getattr(fit, name) is not None
    }
    return Surface(**known) if len(known) == len(Surface.model_fields) else None


def _residuals(
    analysis: Analysis,
    result: BudgetResult,
    table: pd.DataFrame,
    *,
    band: float,
    domain: list[float],
    caption: str,
) -> Figure:
    """Draw log measured less log fitted loss; the grey band is where residuals count squared."""
    y_title = "Log loss, measured less fitted"
    x = count_axis("parameters", "Parameters", list(table["parameters"]))
    y = alt.Y(
        "residual:Q",
        title=y_title,
        scale=alt.Scale(domain=domain, nice=False, zero=False),
        axis=alt.Axis(tickCount=6, labelExpr=SIGNED_LABEL),
    )
    grey, zero = zero_band(band, y_title)
    base = alt.Chart().encode(x=x, y=y, color=analysis.style.colour(), opacity=fading())
    lines = base.transform_filter("datum.row === 'mean'").mark_line(
        strokeWidth=1.5, strokeOpacity=0.85
    )
    runs = (
        base.transform_filter("datum.row === 'run'")
        .mark_point(filled=True, size=30, fillOpacity=0.6)
        .encode(
            shape=analysis.style.shape(),
            tooltip=tooltips(
                ("variant:N", "Variant"),
                ("parameters:Q", "Parameters", ",.0f"),
                ("seed:Q", "Seed"),
                ("loss:Q", "Measured", ".4f"),
                ("fitted:Q", "Fitted", ".4f"),
                ("residual:Q", "Log residual", "+.4f"),
            ),
        )
    )
    return figure(
        f"surface-residuals-{exponent(result.budget_flops)}",
        f"Residuals of the loss surface, {scientific(result.budget_flops)} FLOPs",
        caption,
        [grey.add_params(PICKED), zero, lines, runs],
        table,
        height=280,
    )


def _agreement(analysis: Analysis, column: str, table: pd.DataFrame, caption: str) -> Figure:
    """Draw a column of `estimator_minima` of every curve, relative to the curve's median."""
    logarithmic = column == "parameters_ratio"
    *named, axis = _AGREEMENT[column]
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
    offset = alt.YOffset("estimator:N", sort=estimators, scale=alt.Scale(domain=estimators))
    ends_tip = f"{column}_low", f"{column}_high"
    tooltip = tooltips(
        ("variant:N", "Variant"),
        ("budget_flops:Q", "Budget, FLOPs", "~e"),
        ("estimator:N", "Estimator"),
        ("status:N", "Ended"),
        ("parameters:Q", "Parameters", ",.0f"),
        ("loss:Q", "Loss", ".4f"),
    )
    base = alt.Chart().encode(
        y=_curve_axis(curves), yOffset=offset, color=analysis.style.colour(legend=False)
    )
    bars = (
        base.transform_filter(f"isValid(datum.{ends_tip[0]})")
        .mark_rule(strokeWidth=1.8, strokeOpacity=0.75, clip=True)
        .encode(x=alt.X(f"{ends_tip[0]}:Q", title=axis), x2=f"{ends_tip[1]}:Q")
    )
    points = (
        base.transform_filter(f"isValid(datum.{column})")
        .mark_point(filled=True, size=70, opacity=1)
        .encode(x=x, shape=_shape(estimators), tooltip=tooltip)
    )
    refused = (
        base.transform_filter(f"!isValid(datum.{column})")
        .mark_text(text="\N{MULTIPLICATION SIGN} refused", fontSize=10, align="left", dx=4)
        .encode(x=alt.value(0), tooltip=tooltip)
    )
    height = _ROW_STEP * len(curves) * (len(estimators) + 1)
    return figure(
        named[0],
        named[1],
        caption,
        [rule(middle, x=axis), bars, points, refused],
        table,
        height=height,
        width=HALF_WIDTH,
    )


def _curve_axis(curves: list[str]) -> alt.Y:
    return alt.Y(
        "curve:N",
        title=None,
        sort=curves,
        scale=alt.Scale(paddingInner=0.2, paddingOuter=0.1),
        axis=alt.Axis(
            labelExpr=_ROW_LABEL, labelLimit=110, ticks=False, domain=False, labelPadding=8
        ),
    )


def _shape(estimators: list[str]) -> alt.Shape:
    return alt.Shape(
        "estimator:N",
        scale=alt.Scale(domain=estimators, range=list(SHAPES[: len(estimators)])),
        legend=alt.Legend(
            columns=alt.ExprRef("width < 420 ? 2 : 4"), symbolFillColor=INK, symbolStrokeColor=INK
        ),
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
