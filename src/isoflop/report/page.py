"""The self-contained page: one file, no network, whatever names hold."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isoflop import storage
from isoflop.config import canonical
from isoflop.report.analysis import Analysis
from isoflop.report.blocks import Section
from isoflop.report.render import vega_javascript
from isoflop.report.routed import depth_colours
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.words import results, scaling
from isoflop.report.words.answers import fitted_records
from isoflop.report.words.checklist import checklist, standings
from isoflop.report.words.provenance import mixed_environments
from isoflop.text import visible
from isoflop.version import __version__


def page(
    analysis: Analysis | ScalingAnalysis, sections: Sequence[Section], stills: Mapping[str, str]
) -> str:
    """Return the page as HTML.

    Args:
        analysis: the fitted records.
        sections: its parts, as `sections.sections` makes them.
        stills: SVG of each figure by its name, for print and where scripts are off.
    """
    study, evidence = analysis.study, analysis.evidence
    topics = checklist(analysis)
    answered = standings(topics)
    checked = ("Checklist", f"{answered['disclosed']} of {answered.total()} answered")
    drawn = [figure for section in sections for figure in section.figures()]
    return (
        _templates()
        .get_template("page.html.jinja")
        .render(
            **_front(analysis, checked),
            study=study,
            mixed=mixed_environments(fitted_records(analysis)),
            colours=dict(zip(analysis.style.names, analysis.style.colours, strict=True)),
            sections=sections,
            topics=topics,
            standings=answered,
            command=evidence.command or f"isoflop report {study.name}.toml",
            configuration=json.dumps(canonical(study), indent=2, ensure_ascii=False),
            version=__version__,
            stills={name: _data_address(svg) for name, svg in stills.items()},
            specs=script_json({one.name: one.spec() for one in drawn}),
            css=_packaged("page.css"),
            script=_packaged("page.js"),
            vega=vega_javascript(),
            kind=lambda block: type(block).__name__.lower(),
            depth_colours=depth_colours,
        )
    )


def _front(analysis: Analysis | ScalingAnalysis, checked: tuple[str, str]) -> dict[str, object]:
    """Return what stands at the top: the answer, the facts, what must be doubted."""
    if isinstance(analysis, ScalingAnalysis):
        kicker, title = "Scaling study", "What limits these runs."
        lede, doubts = scaling.headline(analysis), scaling.doubts(analysis)
        *facts, left_out = scaling.facts(analysis)
    else:
        kicker, title = "Equal-compute study", "No verdict stands on these runs."
        lede, doubts = results.headline(analysis), results.doubts(analysis)
        *facts, left_out = results.facts(analysis)
    return {
        "kicker": kicker,
        "lede": lede,
        "facts": [*facts, checked, *([left_out] if left_out[1] else [])],
        "doubts": doubts,
        "doubts_title": title,
    }


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


def _data_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _packaged(name: str) -> str:
    source = resources.files("isoflop.report").joinpath("templates", name)
    return source.read_text(encoding="utf-8")
