"""The self-contained page of a scaling study."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from isoflop.notation import count, percent
from isoflop.report import disclosed_fits, disclosed_runs
from isoflop.report.disclosure import Evidence, Standing, standings
from isoflop.report.page import rendered
from isoflop.report.routed import RoutedModel
from isoflop.report.routed_section import routed_section
from isoflop.report.scaling import disclosed, rows
from isoflop.report.scaling.analysis import AXES, ScalingAnalysis
from isoflop.report.scaling.panels import AXIS_LABELS, AXIS_SHORT, ScalingFigures
from isoflop.report.scaling.published import PublishedLines
from isoflop.report.scaling.switch import switch_sentences
from isoflop.report.scaling.words import METHOD, doubts, headline, results

TOPICS = (
    disclosed.quantities,
    disclosed.models,
    disclosed.training,
    disclosed_runs.data,
    disclosed.counted_runs,
    disclosed.fits,
    disclosed_fits.raw_data,
)
"""What is disclosed, in the order of the page."""


@dataclass(frozen=True)
class ScalingSource:
    """What a page is made from besides the fitted records."""

    evidence: Evidence
    published: PublishedLines | None
    command: str
    """What makes this page again."""
    routed: RoutedModel | None = None
    """The routed model to look into."""


def scaling_page(
    analysis: ScalingAnalysis,
    figures: ScalingFigures,
    stills: Mapping[str, str],
    source: ScalingSource,
) -> str:
    """Return the page as HTML.

    Args:
        analysis: the fitted records.
        figures: as `scaling_figures` makes them.
        stills: SVG of each figure by its name, for print and where scripts are off.
        source: what the checklist is taken from, the published tables and the command.
    """
    topics = [topic(analysis, source.evidence) for topic in TOPICS]
    return rendered(
        "scaling.html.jinja",
        analysis,
        source.evidence,
        figures.all(),
        stills,
        topics,
        kicker="Scaling study",
        lede=headline(analysis),
        facts=_facts(analysis, source.evidence, standings(topics)),
        doubts=doubts(analysis),
        doubts_title="What limits these runs.",
        command=source.command,
        sentences=results(analysis),
        baseline=analysis.baseline,
        unit=analysis.study.data.loss_unit,
        level=percent(analysis.level, 0),
        method=METHOD,
        axes=[
            {
                "key": axis,
                "label": AXIS_LABELS[axis],
                "short": AXIS_SHORT[axis],
                "panel": figures.losses[axis],
            }
            for axis in AXES
        ],
        gaps=figures.gaps,
        switch=figures.switch,
        switch_sentences=switch_sentences(analysis),
        gap_table=rows.gap_rows(analysis),
        coefficients=rows.coefficient_rows(analysis),
        routed=routed_section(source.routed, figures.routed, analysis.loss_unit),
        published=figures.published,
        published_table=rows.published_rows(source.published),
        models=rows.model_rows(analysis),
        rates=rows.check_rows(analysis),
        left_out=rows.left_out_rows(analysis, source.evidence.missing),
    )


def _facts(
    analysis: ScalingAnalysis, evidence: Evidence, answers: Counter[Standing]
) -> list[tuple[str, str]]:
    study = analysis.study
    runs = [record for _, record in analysis.finished()]
    sizes = sorted({record.parameters.non_embedding for record in runs})
    facts = [
        ("Variants", str(len(study.variants))),
        ("Sizes (N)", ", ".join(count(size) for size in sizes) or "none"),
        ("Seeds", str(len(study.seeds))),
        ("Window", f"{study.data.sequence_length:,} tokens"),
        ("Runs finished", str(len(runs))),
        ("Checklist", f"{answers['disclosed']} of {answers.total()} answered"),
    ]
    others = len(analysis.table) - len(runs) + len(evidence.missing)
    return [*facts, ("Runs left out", str(others))] if others else facts
