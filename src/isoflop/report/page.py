"""From a study's records to its figures and its self-contained page: one file, no network."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isoflop import storage
from isoflop.config import Study, canonical
from isoflop.report.analysis import Analysis, analyse
from isoflop.report.blocks import Section
from isoflop.report.evidence import RUNS, Evidence
from isoflop.report.render import vega_javascript, write_figure, write_table
from isoflop.report.routed import depth_colours
from isoflop.report.scaling import ScalingAnalysis, analyse_scaling
from isoflop.report.sections import sections
from isoflop.report.theme import Style
from isoflop.report.words.answers import fitted_records
from isoflop.report.words.checklist import checklist, standings
from isoflop.report.words.prose import told
from isoflop.report.words.provenance import counted, mixed_environments
from isoflop.text import visible
from isoflop.version import __version__

PAGE = "index.html"
FIGURES = "figures"


def write_report(study: Study, evidence: Evidence, out: Path) -> Path:
    """Write figures (PNG, SVG, PDF, CSV), tables of runs and findings, one self-contained page.

    Args:
        study: what was studied: budgets, or sizes that it names.
        evidence: the records of its runs, and what else is known of them.
        out: folder for `index.html` and `figures/`; created, and files in it replaced.

    Returns:
        The path of the page.

    Raises:
        ValueError: a record belongs to no variant of the study, is listed twice, or lacks its
            loss.
        StorageError: something cannot be written.
    """
    analysis = analysed(study, evidence)
    parts, folder = sections(analysis), out / FIGURES
    drawn = [figure for section in parts for figure in section.figures()]
    stills = {one.name: write_figure(one, folder) for one in drawn}
    write_table(analysis.runs_table(), folder / f"{RUNS}.csv")
    for table in [table for section in parts for table in section.tables()]:
        if table.csv and len(table.data):
            write_table(table.data, folder / f"{table.csv}.csv")
    storage.write_text(out / PAGE, page(analysis, parts, stills))
    return out / PAGE


def analysed(study: Study, evidence: Evidence) -> Analysis | ScalingAnalysis:
    """Return what a study's runs show. Arguments and errors are those of `write_report`."""
    names = [variant.name for variant in study.variants]
    unknown = sorted({*evidence.variant_of.values(), *evidence.checks.values()} - set(names))
    if unknown:
        raise ValueError(f"a run belongs to variant {unknown[0]!r}; expected one of {names}")
    return (analyse if study.scaling is None else analyse_scaling)(study, evidence)


def lede(analysis: Analysis | ScalingAnalysis) -> str:
    """Return the answer in a sentence or two."""
    return " ".join(told(analysis.kind, "headline", analysis))


def page(
    analysis: Analysis | ScalingAnalysis, sections: Sequence[Section], stills: Mapping[str, str]
) -> str:
    """Return the page as HTML, of its parts and with the SVG of each figure by its name.

    The SVGs are for print and where scripts are off.
    """
    return whole(analysis.study.name, parts(analysis, sections, stills), specs_of(sections))


def whole(
    name: str,
    parts: Mapping[str, str],
    specs: Mapping[str, storage.JSON],
    key: str | None = None,
) -> str:
    """Return a page of these parts, by id, and the specifications of the figures in them.

    With the key of its report it looks for what is new, as `watch.js` says.
    """
    template = _templates().get_template("page.html.jinja")
    figures, vega = script_json(dict(specs)), vega_javascript()
    return template.render(name=name, parts=parts, specs=figures, vega=vega, key=key)


def parts(
    analysis: Analysis | ScalingAnalysis, sections: Sequence[Section], stills: Mapping[str, str]
) -> dict[str, str]:
    """Return the page's parts by id as HTML; without stills figures and tables name no files."""
    study, evidence = analysis.study, analysis.evidence
    topics = checklist(analysis)
    answered = standings(topics)
    facts = dict(line.split(": ", 1) for line in told(analysis.kind, "facts", analysis, answered))
    mixed = mixed_environments(fitted_records(analysis))
    known = {
        "study": study,
        "lede": lede(analysis),
        "facts": facts,
        "doubts": told(analysis.kind, "doubtful", analysis),
        "mixed": {what: counted(values) for what, values in mixed.items()},
        "sections": sections,
        "topics": topics,
        "standings": answered,
        "command": evidence.command or f"isoflop report {study.name}.toml",
        "configuration": json.dumps(canonical(study), indent=2, ensure_ascii=False),
        "version": __version__,
        "stills": {name: base64.b64encode(svg.encode()).decode() for name, svg in stills.items()},
    }
    return {name: part(name, analysis.style, known) for name in ("header", "report")}


def part(name: str, style: Style, known: Mapping[str, object]) -> str:
    """Return a part of a page as HTML, by its template and what that is to be told."""
    template = _templates().get_template(f"{name}.html.jinja")
    colours = dict(zip(style.names, style.colours, strict=True))
    called = {"colours": colours, "depth_colours": depth_colours, "kind": _kind}
    return Markup(template.render(called, numbered=name != "now", **known))


def specs_of(sections: Sequence[Section]) -> dict[str, storage.JSON]:
    """Return what draws each figure by its name, as Vega-Lite has it."""
    return {one.name: one.spec() for section in sections for one in section.figures()}


def _kind(block: object) -> str:
    return type(block).__name__.lower()


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
