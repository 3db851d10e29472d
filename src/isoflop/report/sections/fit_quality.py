"""How well the fits fit: residuals of the surface, and how far the estimators agree."""

from __future__ import annotations

import altair as alt
import numpy as np
import pandas as pd

from isoflop.fit.surfaces.surface import Surface
from isoflop.fit.tables.frame import curve_rows
from isoflop.notation import exponent, percent
from isoflop.report import figure as draw
from isoflop.report.analysis import Analysis, BudgetResult
from isoflop.report.blocks import Pair, Section
from isoflop.report.theme import INK, PICKED, SHAPES, fading, legend_columns
from isoflop.report.words.results import ESTIMATOR_WORDS

_ROW_STEP = 17
"""Height of one estimator's interval; a curve has one more for the gap to the next."""
_LOSS, _SIZE = "Loss less the estimators' median, nats", "Parameters / the estimators' median"

FARTHEST = 3.0
"""How many median intervals an axis reaches beyond the outermost mark, at most."""


def section(analysis: Analysis) -> Section | None:
    """Return residuals by budget and the agreement of the estimators; None without either."""
    left, agreed = residual_panels(analysis), agreement_figures(analysis)
    if not left and not agreed:
        return None
    return Section("How well the fits fit", [*left, Pair(agreed)])


def residual_panels(analysis: Analysis) -> list[draw.Panel]:
    """Draw what the surfaces leave, a figure per budget; none where no surface was fitted."""
    fitted = {name: fit.surface for name, fit in analysis.variant_fits.items() if fit.surface}
    without = "".join(f" {name}: {fit.message}." for name, fit in fitted.items() if fit.E is None)
    found = [(one, residuals(analysis, one)) for one in analysis.budgets]
    drawn = [(one, table) for one, table in found if len(table)]
    if not drawn:
        why = f"No variant has a surface.{without}"
        return [draw.Absent("Residuals of the loss surface", why)] if fitted else []
    delta = next(fit.delta for fit in fitted.values() if fit.delta is not None)
    spread = [*pd.concat([table["residual"] for _, table in drawn]), -2 * delta, 2 * delta]
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
        caption += f" Without a surface:{without}"
    others = "As the figure before, on the same axis."
    return [
        draw.figure(
            f"surface-residuals-{exponent(one.budget_flops)}",
            f"Residuals of the loss surface, {one.told}",
            caption if one is drawn[0][0] else others,
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
    table = estimator_minima(analysis)
    if table["loss"].isna().all():
        return []
    caption = (
        "A row per curve, a mark per estimator, with 95% intervals; {} is the median of the "
        "curve's estimators. Marks that lie apart by more than their intervals show a systematic "
        "error that no interval holds. Intervals far wider than most are cut at the edge."
    )
    if table["loss"].isna().any():
        caption += " Refused minima have no mark; the table of minima says why."
    ends = shown_range(table, "loss_difference")
    low, high = shown_range(table, "parameters_ratio", logarithmic=True)
    by_loss = draw.linear_axis(
        *(alt.X, "loss_difference", _LOSS, ends), tickCount=5, labelExpr=draw.SIGNED_LABEL
    )
    by_size = draw.log_axis(
        *("parameters_ratio", _SIZE, [low, high]), margin=(high / low) ** 0.06, grid=True
    )
    drawn = (
        (
            "estimator-losses",
            "Loss of the minima by estimator",
            caption.format("zero"),
            _agreement(analysis, "loss_difference", table, by_loss),
        ),
        (
            "estimator-sizes",
            "Size of the minima by estimator",
            caption.format("one"),
            _agreement(analysis, "parameters_ratio", table, by_size),
        ),
    )
    height = _ROW_STEP * table["curve"].nunique() * (table["estimator"].nunique() + 1)
    return [draw.figure(*one, table, height=height, width=draw.HALF_WIDTH) for one in drawn]


def estimator_minima(analysis: Analysis) -> pd.DataFrame:
    """Return a row per budget, variant and estimator: the minimum with the ends of its intervals.

    `curve` names variant and budget; `parameters` and `loss` are those of the minimum, with `_low`
    and `_high`, the ends of its intervals, and beside each of these its `parameters_ratio` or
    `loss_difference` to the median of the curve's estimators. Refused minima have a status and no
    numbers.
    """
    several = len(analysis.budgets) > 1
    rows = []
    for result in analysis.budgets:
        at = f"\n{exponent(result.budget_flops)} FLOPs" if several else ""
        for name in analysis.names:
            for estimator in analysis.estimators:
                one = result.minima.get((name, estimator))
                if one is None:
                    continue
                ends = one.interval
                of = (name, result.budget_flops, f"{name}{at}", ESTIMATOR_WORDS[estimator])
                sizes = (ends.parameters_low, ends.parameters_high) if ends else (None, None)
                losses = (ends.low, ends.high) if ends else (None, None)
                rows.append((*of, one.status, one.parameters, *sizes, one.loss, *losses))
    columns = ["variant", "budget_flops", "curve", "estimator", "status"]
    numbers = [f"{of}{end}" for of in ("parameters", "loss") for end in ("", "_low", "_high")]
    table = pd.DataFrame(rows, columns=[*columns, *numbers])
    table = table.astype(dict.fromkeys(numbers, "float64"))
    curves = table.groupby(["variant", "budget_flops"])
    medians = curves[["parameters", "loss"]].transform("median")
    for end in ("", "_low", "_high"):
        table[f"parameters_ratio{end}"] = table[f"parameters{end}"] / medians["parameters"]
        table[f"loss_difference{end}"] = table[f"loss{end}"] - medians["loss"]
    return table


def _agreement(analysis: Analysis, column: str, table: pd.DataFrame, x: alt.X) -> list[alt.Chart]:
    """Draw a column of `estimator_minima` of every curve, relative to the curve's median."""
    middle, title = (0.0, _LOSS) if column == "loss_difference" else (1.0, _SIZE)
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


def shown_range(
    table: pd.DataFrame, column: str, *, logarithmic: bool = False
) -> tuple[float, float]:
    """Return what an axis must hold: every mark, and of the intervals what is not far beyond."""
    values = table[[column, f"{column}_low", f"{column}_high"]].to_numpy()
    if logarithmic:
        values = np.log(values)
    marks, ends = values[:, :1], values[:, 1:]
    reach = np.abs(ends - marks)
    far = (
        FARTHEST * float(np.median(reach[np.isfinite(reach)])) if np.isfinite(reach).any() else 0.0
    )
    low, high = np.nanmin(marks), np.nanmax(marks)
    inside = [low, high, 0.0, *ends[np.isfinite(ends)].clip(low - far, high + far)]
    found = np.array([min(inside), max(inside)])
    low, high = (np.exp(found) if logarithmic else found).tolist()
    return low, high
