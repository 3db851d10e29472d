"""Which figures a scaling study gets, with their captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isoflop.fit.spans.values import Axis
from isoflop.notation import percent
from isoflop.report.figure import Figure
from isoflop.report.figures import Absent, Panel
from isoflop.report.routed import RoutedModel
from isoflop.report.routed_figures import RoutedFigures, routed_figures
from isoflop.report.scaling import tables
from isoflop.report.scaling.analysis import AXES, ScalingAnalysis
from isoflop.report.scaling.figures import gaps_by_span, loss_against_compute
from isoflop.report.scaling.published import PublishedLines, published_losses
from isoflop.report.scaling.switch import switch_figure
from isoflop.report.scaling.words import refusals
from isoflop.report.theme import Style

AXIS_LABELS: Mapping[Axis, str] = {"6nd": "6ND (as published)", "causal": "exact FLOPs"}
AXIS_SHORT: Mapping[Axis, str] = {"6nd": "6ND", "causal": "exact"}


@dataclass(frozen=True)
class ScalingFigures:
    """All figures of a scaling study, in the order of the page."""

    gaps: Panel
    losses: Mapping[Axis, Panel]
    switch: Figure | None
    """Where no variant turns to full attention, None."""
    routed: RoutedFigures
    """Of the routed model that the report looks into."""
    published: Figure | None

    def all(self) -> list[Figure]:
        """Return every figure that can be drawn."""
        panels = [self.gaps, *self.losses.values(), self.switch, *self.routed.all(), self.published]
        return [panel for panel in panels if isinstance(panel, Figure)]


def scaling_figures(
    analysis: ScalingAnalysis,
    published: PublishedLines | None,
    routed: RoutedModel | None = None,
) -> ScalingFigures:
    """Return the figures of a scaling study.

    Args:
        analysis: the fitted records.
        published: the published curves; None leaves their figure out.
        routed: the routed model to look into, if there is one.
    """
    style = Style.of([variant.name for variant in analysis.study.variants], analysis.baseline)
    return ScalingFigures(
        gaps=_gaps(analysis, style),
        losses={axis: _losses(analysis, style, axis) for axis in AXES},
        switch=switch_figure(analysis, style),
        routed=routed_figures(routed, analysis.loss_unit),
        published=None if published is None else published_losses(published),
    )


def _losses(analysis: ScalingAnalysis, style: Style, axis: Axis) -> Panel:
    title = f"Loss against compute by position, {AXIS_LABELS[axis]}"
    table = tables.losses_against_compute(analysis, axis)
    if table.empty:
        return Absent(title, "No finished run tells its losses by position.")
    counted = {
        "6nd": "Compute is 6 N D, N without embeddings, the same for every variant of a size.",
        "causal": "Compute is counted exactly: each query is charged for the keys it may attend, "
        "so block attention stands further to the left.",
    }[axis]
    caption = (
        f"{counted} Thin lines are training curves, one per run, the early part cut; points are "
        "test losses at the end of runs; dashed lines are projections, drawn on to "
        f"{tables.BEYOND:g} times the largest compute, taking turns where they coincide: "
        "L = a C^b by least squares through the mean final losses of the sizes. Both axes are "
        "logarithmic; each panel has its own losses."
    )
    refused = refusals(analysis)
    if refused:
        caption += f" Without a projection: {'; '.join(refused)}."
    return loss_against_compute(
        f"loss-against-compute-{AXIS_SHORT[axis].lower()}",
        title,
        table,
        style,
        order=[name for name in analysis.names.values() if name in set(table["panel"])],
        axis_title=f"Loss, {analysis.loss_unit}, against PFLOP/s-days ({AXIS_SHORT[axis]})",
        caption=caption,
    )


def _gaps(analysis: ScalingAnalysis, style: Style) -> Panel:
    table = tables.gaps(analysis)
    if table.empty:
        why = "No two variants have finished runs of the same size and seed."
        return Absent("Gaps by position", why)
    margin = analysis.study.equivalence_margin
    band = (
        f"The grey band is the margin declared before training, {margin:g}; a variant whose thick "
        f"interval lies in it matches, for which {percent(2 * analysis.level - 1, 0)} intervals "
        "would do."
        if margin
        else "No margin was declared, so there is no band."
    )
    caption = (
        f"Loss less that of {analysis.baseline}, so that above zero is worse. Thick marks are "
        "means over sizes, thin ones the sizes, the smallest at the left, with "
        f"{percent(analysis.level, 0)} intervals. {band}"
    )
    return gaps_by_span(
        table,
        style,
        margin=margin,
        unit=analysis.loss_unit,
        baseline=analysis.baseline,
        caption=caption,
    )
