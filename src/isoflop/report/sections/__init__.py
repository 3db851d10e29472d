"""The parts of a page, one a file: its data, its chart and its table; words are templates.

A page is a list of them. To add a figure, write a file with a function `section` and name it here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isoflop.report.analysis import Analysis
from isoflop.report.blocks import Section
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.sections import (
    checks,
    curves,
    fit_quality,
    league,
    numbered_models,
    predictions,
    published,
    relative_loss,
    routing,
    runs,
    search,
    tasks,
)
from isoflop.report.sections.scaling import compute, gaps, switch
from isoflop.report.sections.scaling import published as published_scaling

STUDY: Sequence[Callable[[Analysis], Section | None]] = (
    curves.section,
    league.section,
    relative_loss.over_active,
    relative_loss.section,
    numbered_models.section,
    routing.section,
    tasks.section,
    published.section,
    checks.section,
    search.section,
    fit_quality.section,
    predictions.section,
    runs.left_out,
    runs.routing_decisions,
)
"""Of a study of budgets, in the order of the page."""

SCALING: Sequence[Callable[[ScalingAnalysis], Section | None]] = (
    gaps.section,
    compute.section,
    switch.section,
    routing.section,
    published_scaling.section,
    runs.models,
    runs.left_out,
)
"""Of a scaling study, in the order of the page."""


def sections(analysis: Analysis | ScalingAnalysis) -> list[Section]:
    """Return the parts of a study's page, those that there is something for."""
    if isinstance(analysis, ScalingAnalysis):
        found = [section(analysis) for section in SCALING]
    else:
        found = [section(analysis) for section in STUDY]
    return [one for one in found if one is not None]
