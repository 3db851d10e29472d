"""Which figures a study gets, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from isoflop.notation import exponent, percent, scientific
from isoflop.report import fit_tables, tables
from isoflop.report.analysis import HEADLINE, Analysis, BudgetResult
from isoflop.report.curves import loss_against_parameters
from isoflop.report.figure import Figure, padded
from isoflop.report.fit_figures import agreement, surface_residuals
from isoflop.report.models import bars, training_loss
from isoflop.report.normalised import normalised_loss
from isoflop.report.published import beside_published, published_minima, published_points
from isoflop.report.routed import RoutedModel
from isoflop.report.routed_figures import RoutedFigures, routed_figures
from isoflop.report.speeds import BenchRow
from isoflop.report.theme import Style
from isoflop.report.words import refusals


@dataclass(frozen=True)
class Absent:
    """A panel that cannot be drawn, and why or how to get it."""

    title: str
    text: str


Panel = Figure | Absent


@dataclass(frozen=True)
class BudgetFigures:
    """The figures of one budget."""

    budget_flops: float
    relative: Panel
    models: tuple[Panel, ...]
    """Training loss against FLOPs and against wall-clock, FLOPs per step, steps per second."""
    costs: pd.DataFrame
    """The numbered models of Figure 3, as `tables.model_costs` makes it."""


@dataclass(frozen=True)
class StudyFigures:
    """All figures of a study, in the order of the page."""

    curves: Panel
    budgets: tuple[BudgetFigures, ...]
    residuals: tuple[Panel, ...]
    """Of the surface, a figure per budget."""
    agreement: tuple[Figure, ...]
    """Minima by every estimator; empty while no curve has one."""
    published: tuple[Figure, ...]
    """Ours beside the published ones; empty where the study shares no variant with the paper."""
    routed: RoutedFigures
    """Of the routed model that the report looks into."""

    def all(self) -> list[Figure]:
        """Return every figure that can be drawn."""
        panels: list[Panel] = [self.curves]
        for budget in self.budgets:
            panels += [budget.relative, *budget.models]
        panels += [*self.routed.all(), *self.residuals, *self.agreement, *self.published]
        return [panel for panel in panels if isinstance(panel, Figure)]


def study_figures(
    analysis: Analysis, speeds: Sequence[BenchRow], routed: RoutedModel | None = None
) -> StudyFigures:
    """Return the figures of a study.

    Args:
        analysis: its fitted records.
        speeds: measured steps per second; without them two panels say how to get them.
        routed: the routed model to look into, if there is one.
    """
    style = Style.of([variant.name for variant in analysis.study.variants], analysis.baseline)
    return StudyFigures(
        curves=_curves(analysis, style),
        budgets=tuple(
            BudgetFigures(
                budget_flops=result.budget_flops,
                relative=_relative(analysis, result, style),
                models=_models(analysis, result, style, speeds),
                costs=tables.model_costs(analysis, result.figure3, speeds),
            )
            for result in analysis.budgets
        ),
        residuals=_residuals(analysis, style),
        agreement=_agreement(analysis, style),
        published=_published(analysis, style),
        routed=routed_figures(routed, analysis.loss_unit),
    )


def _curves(analysis: Analysis, style: Style) -> Panel:
    title = "Loss against parameters"
    table = tables.curves(analysis)
    if table.empty:
        return Absent(title, "No run has finished.")
    caption = (
        "Each point is one trained model; lines join the means over seeds at one budget, which "
        f"the bracket at the right names. A large outlined mark is a minimum (by {HEADLINE} in "
        "log parameters). Bars are 95% intervals: thin ones of a mean (from the "
        "spread of its curve's runs), thick ones of a minimum."
    )
    if (table["row"] == "off_ladder").any():
        caption += " Hollow points are routed models in a baseline's shape; fits leave them out."
    refused = refusals(analysis)
    if refused:
        caption += (
            " A cross (\N{MULTIPLICATION SIGN}) marks the lowest mean of a curve whose minimum is "
            "refused: " + " ".join(refused)
        )
    title_of_loss = f"Test loss, {analysis.loss_unit}"
    return loss_against_parameters(table, style, title_of_loss, caption)


def _relative(analysis: Analysis, result: BudgetResult, style: Style) -> Panel:
    at = scientific(result.budget_flops)
    title = f"Loss and forward FLOPs relative to the optimal baseline, {at} FLOPs"
    if result.reference is None:
        return Absent(title, f"No run of {analysis.baseline} has finished at this budget.")
    caption = (
        f"Each bubble is one size, the mean over its seeds. {analysis.baseline} at its optimum is "
        "at (1, 1): below the horizontal line is a lower loss, left of the vertical one a cheaper "
        "forward pass. Dashed lines join the sizes of a variant."
    )
    if not result.reference_bracketed:
        caption += (
            f" The optimum of {analysis.baseline} is not bracketed: its lowest trained size stands "
            "in for it, so the ratios are provisional and no model is numbered."
        )
    elif result.figure4:
        caption += " " + " ".join(
            f"({one.number}) {one.rule}."
            if one.model
            else f"({one.number}) is missing: {one.reason}."
            for one in result.figure4
        )
    return normalised_loss(
        f"relative-loss-{exponent(result.budget_flops)}",
        title,
        tables.relative_losses(analysis, result),
        style,
        "Test loss / optimal baseline's",
        caption,
    )


def _models(
    analysis: Analysis, result: BudgetResult, style: Style, speeds: Sequence[BenchRow]
) -> tuple[Panel, ...]:
    slug = exponent(result.budget_flops)
    titles = (
        "Training loss against FLOPs",
        "Training loss against wall-clock",
        "FLOPs per step",
        "Steps per second",
    )
    missing = " ".join(
        f"Model {one.number} ({one.rule}) is missing: {one.reason}."
        for one in result.figure3
        if one.model is None
    )
    costs = tables.model_costs(analysis, result.figure3, speeds)
    if costs.empty:
        why = missing or "The study has no routed variant to single out."
        return (Absent("Four models", why),)
    curves = tables.training_curves(analysis, result.figure3, costs)
    unmeasured = (
        "Not measured. Run 'isoflop bench train' on this study's file while the machine is idle, "
        "then make the report again. The sweep's own timings are not used, since its runs share "
        "the machine."
    )
    measured = costs.dropna(subset=["steps_per_second"])
    partly = (
        " Not measured: "
        + ", ".join(f"model {n}" for n in costs.loc[costs["steps_per_second"].isna(), "number"])
        + "."
        if 0 < len(measured) < len(costs)
        else ""
    )
    unit = analysis.loss_unit
    panels: list[Panel] = []
    if curves.empty:
        panels.append(Absent(titles[0], "The records hold no training curve."))
    else:
        panels.append(
            training_loss(
                f"training-flops-{slug}",
                titles[0],
                curves,
                style,
                ("flops", "Training FLOPs"),
                unit,
                "One line per seed. The early part, which is off the scale, is cut. " + missing,
            )
        )
    timed = curves.dropna(subset=["seconds"])
    if timed.empty:
        panels.append(Absent(titles[1], unmeasured))
    else:
        panels.append(
            training_loss(
                f"training-seconds-{slug}",
                titles[1],
                timed,
                style,
                ("seconds", "Wall-clock, seconds"),
                unit,
                "Wall-clock is steps over measured steps per second." + partly,
            )
        )
    panels.append(
        bars(
            f"flops-per-step-{slug}",
            titles[2],
            tables.bars(costs, "flops_per_step"),
            style,
            ("flops_per_step", "Training FLOPs per step"),
            f"Counted, {analysis.study.convention} convention; backward is twice forward.",
        )
    )
    if measured.empty:
        panels.append(Absent(titles[3], unmeasured))
    else:
        panels.append(
            bars(
                f"steps-per-second-{slug}",
                titles[3],
                tables.bars(costs, "steps_per_second"),
                style,
                ("steps_per_second", "Steps per second"),
                "Measured by 'isoflop bench train', the models in turn on an idle machine."
                + partly,
            )
        )
    return tuple(panels)


def _residuals(analysis: Analysis, style: Style) -> tuple[Panel, ...]:
    found = [(one, fit_tables.residuals(analysis, one)) for one in analysis.budgets]
    drawn = [(one, table) for one, table in found if len(table)]
    found_fits = analysis.fits.variants if analysis.fits else {}
    fitted = {
        variant.name: fit.surface
        for variant in analysis.study.variants
        if (fit := found_fits.get(variant.name)) is not None and fit.surface is not None
    }
    without = [f"{name}: {fit.message}." for name, fit in fitted.items() if fit.E is None]
    if not drawn:
        if not fitted:
            return ()
        why = "No variant has a surface. " + " ".join(without)
        return (Absent("Residuals of the loss surface", why),)
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
    return tuple(
        surface_residuals(
            f"surface-residuals-{exponent(one.budget_flops)}",
            f"Residuals of the loss surface, {scientific(one.budget_flops)} FLOPs",
            table,
            style,
            delta=delta,
            domain=domain,
            caption=caption if one is drawn[0][0] else "As the figure before, on the same axis.",
        )
        for one, table in drawn
    )


def _agreement(analysis: Analysis, style: Style) -> tuple[Figure, ...]:
    table = fit_tables.estimator_minima(analysis)
    if table["loss"].isna().all():
        return ()
    caption = (
        "A row per curve, a mark per estimator, with 95% intervals; zero is the median of the "
        "curve's estimators. Marks that lie apart by more than their intervals show a systematic "
        "error that no interval holds. Intervals far wider than most are cut at the edge."
    )
    if table["loss"].isna().any():
        caption += " Refused minima have no mark; the table of minima says why."
    return (
        agreement(
            "estimator-losses",
            "Loss of the minima by estimator",
            table,
            style,
            column="loss_difference",
            axis="Loss less the estimators' median, nats",
            logarithmic=False,
            caption=caption,
        ),
        agreement(
            "estimator-sizes",
            "Size of the minima by estimator",
            table,
            style,
            column="parameters_ratio",
            axis="Parameters / the estimators' median",
            logarithmic=True,
            caption=caption.replace("zero is", "one is"),
        ),
    )


def _published(analysis: Analysis, style: Style) -> tuple[Figure, ...]:
    note = (
        "Crosses: values read off the published figures (arXiv 2404.02258), approximate, of models "
        "with 50M to 3B parameters on other data. Discs: this study. Both are relative to their "
        "own optimal baseline, which is at (1, 1)."
    )
    figures = []
    theirs, ours = published_minima(analysis.study), tables.our_minima(analysis)
    if len(theirs):
        dotted = (
            " A dotted line is a published loss whose size the figure does not tell."
            if theirs["x_ratio"].isna().any()
            else ""
        )
        figures.append(
            beside_published(
                "published-minima",
                "Minima beside the published ones",
                _joined(ours, theirs),
                style,
                "Optimal parameters / optimal baseline's",
                note + dotted,
            )
        )
    theirs, ours = published_points(analysis.study), tables.our_points(analysis)
    if len(theirs):
        figures.append(
            beside_published(
                "published-models",
                "Matching and optimal MoD beside the published ones",
                _joined(ours, theirs),
                style,
                "Forward FLOPs / optimal baseline's",
                note + " The upper point of each pair is the cheapest routed model with no more "
                "than the baseline's loss, the lower one the optimal routed model.",
            )
        )
    return tuple(figures)


def _joined(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([part for part in (ours, theirs) if len(part)], ignore_index=True)
