"""The self-contained page: one file, no network, whatever names hold."""

from __future__ import annotations

import base64
import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isoflop import storage
from isoflop.config import canonical
from isoflop.notation import scientific
from isoflop.report import disclosed_fits, disclosed_runs, disclosed_training, rows
from isoflop.report.analysis import Analysis
from isoflop.report.disclosure import Evidence, Measured, Standing, Topic, standings
from isoflop.report.figure import Figure
from isoflop.report.figures import StudyFigures
from isoflop.report.provenance import mixed_environments
from isoflop.report.registration import Registration
from isoflop.report.render import vega_javascript
from isoflop.report.routed import RoutedModel
from isoflop.report.routed_section import routed_section
from isoflop.report.speeds import BenchRow
from isoflop.report.theme import Style
from isoflop.report.words import doubts, headline, results
from isoflop.text import visible
from isoflop.version import __version__

TOPICS = (
    disclosed_runs.quantities,
    disclosed_training.models,
    disclosed_training.training,
    disclosed_runs.data,
    disclosed_runs.counted_runs,
    disclosed_fits.fits,
    disclosed_fits.uncertainty,
    disclosed_fits.comparisons,
    disclosed_fits.raw_data,
)
"""What is disclosed, in the order of the page."""


@dataclass(frozen=True)
class Source:
    """What a page is made from besides the fitted records."""

    evidence: Evidence
    speeds: Sequence[BenchRow]
    command: str
    """What makes this page again."""
    registered: Sequence[Registration] = ()
    """Predictions that were written down before their budget was trained."""
    routed: RoutedModel | None = None
    """The routed model to look into."""


def page(
    analysis: Analysis, figures: StudyFigures, stills: Mapping[str, str], source: Source
) -> str:
    """Return the page as HTML.

    Args:
        analysis: the fitted records.
        figures: as `study_figures` makes them.
        stills: SVG of each figure by its name, for print and where scripts are off.
        source: what the checklist is taken from, speeds and command.
    """
    found_doubts = doubts(analysis)
    topics = [topic(analysis, source.evidence) for topic in TOPICS]
    by_budget = {one.budget_flops: one for one in figures.budgets}
    return rendered(
        "page.html.jinja",
        analysis,
        source.evidence,
        figures.all(),
        stills,
        topics,
        kicker="Equal-compute study",
        lede=headline(analysis, found_doubts),
        facts=_facts(analysis, source, standings(topics)),
        doubts=found_doubts,
        doubts_title="No verdict stands on these runs.",
        curves=figures.curves,
        estimators=[rows.ESTIMATOR_WORDS[name] for name in analysis.estimators],
        minima=rows.minima_rows(analysis),
        budgets=[
            {
                "at": scientific(result.budget_flops),
                "sentences": results(analysis, result),
                "claims": rows.claim_rows(result.claims, doubted=bool(found_doubts)),
                "relative": by_budget[result.budget_flops].relative,
                "panels": by_budget[result.budget_flops].models,
                "models": rows.model_rows(analysis, result, source.speeds),
                "ratios": rows.ratio_rows(by_budget[result.budget_flops].costs),
            }
            for result in analysis.budgets
        ],
        residuals=figures.residuals,
        agreement=figures.agreement,
        published=figures.published,
        routed=routed_section(source.routed, figures.routed, analysis.loss_unit),
        left_out=rows.left_out_rows(analysis, source.evidence.records, source.evidence.missing),
        decisions=rows.decision_rows(analysis),
        rates=rows.rate_rows(analysis),
        components=rows.component_rows(analysis),
        predictions=rows.prediction_rows(analysis, source.registered),
        registrations=rows.registration_rows(source.registered),
        unit=analysis.loss_unit,
        command=source.command,
    )


def rendered(
    template: str,
    analysis: Measured,
    evidence: Evidence,
    figures: Sequence[Figure],
    stills: Mapping[str, str],
    topics: Sequence[Topic],
    **values: object,
) -> str:
    """Return a page from its template, with what every page has.

    Args:
        template: file name of a template that extends `document.html.jinja`.
        analysis: the fitted records.
        evidence: what else the page is made from.
        figures: all that the page shows.
        stills: SVG of each figure by its name.
        topics: the checklist.
        values: what the template prints besides.
    """
    study = analysis.study
    fitted = set(analysis.table["run_id"])
    style = Style.of([one.name for one in study.variants], study.baseline_variant.name)
    return (
        _templates()
        .get_template(template)
        .render(
            **values,
            study=study,
            mixed=mixed_environments([r for r in evidence.records if r.run_id in fitted]),
            colours=dict(zip(style.names, style.colours, strict=True)),
            topics=topics,
            standings=standings(topics),
            configuration=json.dumps(canonical(study), indent=2, ensure_ascii=False),
            version=__version__,
            stills={name: _data_address(svg) for name, svg in stills.items()},
            specs=script_json({one.name: one.spec() for one in figures}),
            css=_packaged("page.css"),
            script=_packaged("page.js"),
            vega=vega_javascript(),
        )
    )


@functools.cache
def _templates() -> Environment:
    """Return the package's templates; a page's takes longer to compile than to fill in."""
    return Environment(
        loader=PackageLoader("isoflop.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
    )


def script_json(value: storage.JSON) -> str:
    """Return strict JSON that can stand inside a script element, whatever strings it holds."""
    text = storage.to_json(value)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _harmless(value: object) -> object:
    """Spell out control characters in whatever a template prints; markup is escaped after."""
    plain = isinstance(value, str) and not isinstance(value, Markup)
    return visible(str(value), keep=" \n") if plain else value


def _facts(analysis: Analysis, source: Source, answers: Counter[Standing]) -> list[tuple[str, str]]:
    study = analysis.study
    finished = sum(record.state == "finished" for record in source.evidence.records)
    facts = [
        ("Variants", str(len(study.variants))),
        ("Budgets, FLOPs", ", ".join(scientific(budget) for budget in study.budgets_flops)),
        ("Seeds", str(len(study.seeds))),
        ("Runs finished", str(finished)),
        ("Checklist", f"{answers['disclosed']} of {answers.total()} answered"),
    ]
    others = len(source.evidence.records) - finished + len(source.evidence.missing)
    return [*facts, ("Runs left out", str(others))] if others else facts


def _data_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _packaged(name: str) -> str:
    source = resources.files("isoflop.report").joinpath("templates", name)
    return source.read_text(encoding="utf-8")
