"""The self-contained page: one file, no network, whatever names hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from isoflop import storage
from isoflop.config import RunRecord, Study, canonical
from isoflop.report import rows
from isoflop.report.analysis import Analysis
from isoflop.report.figures import StudyFigures
from isoflop.report.notation import count, scientific
from isoflop.report.provenance import LeftOut, environment_of, mixed_environments
from isoflop.report.registration import Registration
from isoflop.report.render import vega_javascript
from isoflop.report.speeds import BenchRow
from isoflop.report.text import visible
from isoflop.report.theme import Style
from isoflop.report.words import doubts, headline, results
from isoflop.version import __version__

CONVENTIONS = {
    "causal": "exact closed forms; each query is charged for the keys it may attend",
    "full": "exact closed forms; attention is charged for the whole square of T by T",
    "6nd": "6 N D with N the non-embedding parameters",
}


@dataclass(frozen=True)
class Source:
    """What a page is made from besides the fitted records."""

    records: Sequence[RunRecord]
    missing: Sequence[LeftOut]
    speeds: Sequence[BenchRow]
    command: str
    """What makes this page again."""
    registered: Sequence[Registration] = ()
    """Predictions that were written down before their budget was trained."""


def page(
    analysis: Analysis, figures: StudyFigures, stills: Mapping[str, str], source: Source
) -> str:
    """Return the page as HTML.

    Args:
        analysis: the fitted records.
        figures: as `study_figures` makes them.
        stills: SVG of each figure by its name, for print and where scripts are off.
        source: records, missing runs, speeds and command.
    """
    study = analysis.study
    found_doubts = doubts(analysis)
    fitted = set(analysis.table["run_id"])
    style = Style.of([variant.name for variant in study.variants], analysis.baseline)
    by_budget = {one.budget_flops: one for one in figures.budgets}
    environment = Environment(
        loader=PackageLoader("isoflop.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
    )
    return environment.get_template("page.html.jinja").render(
        study=study,
        lede=headline(analysis, found_doubts),
        facts=_facts(analysis, source),
        doubts=found_doubts,
        mixed=mixed_environments([r for r in source.records if r.run_id in fitted]),
        colours=dict(zip(style.names, style.colours, strict=True)),
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
                "ratios": rows.ratio_rows(by_budget[result.budget_flops]),
            }
            for result in analysis.budgets
        ],
        published=figures.published,
        left_out=rows.left_out_rows(analysis, source.records, source.missing),
        about=_about(analysis, source),
        decisions=rows.decision_rows(analysis),
        rates=rows.rate_rows(analysis),
        components=rows.component_rows(analysis),
        predictions=rows.prediction_rows(analysis, source.registered),
        unit=analysis.loss_unit,
        command=source.command,
        configuration=json.dumps(canonical(study), indent=2, ensure_ascii=False),
        version=__version__,
        stills={name: _data_address(svg) for name, svg in stills.items()},
        specs=script_json({one.name: one.spec() for one in figures.all()}),
        css=_packaged("page.css"),
        script=_packaged("page.js"),
        vega=vega_javascript(),
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


def _facts(analysis: Analysis, source: Source) -> list[tuple[str, str]]:
    study = analysis.study
    finished = sum(record.state == "finished" for record in source.records)
    facts = [
        ("Variants", str(len(study.variants))),
        ("Budgets, FLOPs", ", ".join(scientific(budget) for budget in study.budgets_flops)),
        ("Seeds", str(len(study.seeds))),
        ("Runs finished", str(finished)),
    ]
    others = len(source.records) - finished + len(source.missing)
    return [*facts, ("Runs left out", str(others))] if others else facts


def _about(analysis: Analysis, source: Source) -> list[tuple[str, str]]:
    study, data = analysis.study, analysis.study.data
    hashes = sorted({record.data_sha256 for record in source.records})
    held_out = f"{data.validation_fraction:.0%} validation, {data.test_fraction:.0%} test"
    return [
        ("Corpus", ", ".join(data.corpora)),
        ("Data, SHA-256", ", ".join(hashes) or rows.NONE),
        ("Tokeniser", f"{data.tokenizer}, sequences of {data.sequence_length}"),
        (
            "Splits",
            f"by document: training, {held_out}. The recipe is searched on validation; the loss "
            "shown is on test.",
        ),
        (
            "Loss",
            f"mean negative log-likelihood, {analysis.loss_unit}, under a causal routing decision "
            "fixed beforehand: the stop-gradient predictor for learned routing, random draws for "
            "the random control",
        ),
        ("N", "total parameters, embeddings included; the axis of every figure"),
        ("D", "tokens trained on"),
        (
            "C",
            f"training FLOPs, convention '{study.convention}': {CONVENTIONS[study.convention]}; "
            "backward is twice forward; router, decision head and logits count",
        ),
        ("Tokens per step", _tokens_per_step(study, source.records)),
        ("Seeds", ", ".join(str(seed) for seed in study.seeds)),
        *((what[:1].upper() + what[1:], value) for what, value in environment_of(source.records)),
    ]


def _tokens_per_step(study: Study, records: Sequence[RunRecord]) -> str:
    found = sorted(
        {(record.config.budget_flops or 0.0, record.config.tokens_per_step) for record in records}
    )
    several = len(study.budgets_flops) > 1
    return (
        ", ".join(
            f"{count(tokens, 4)} at {scientific(budget)} FLOPs" if several else f"{tokens:,}"
            for budget, tokens in found
        )
        or rows.NONE
    )


def _data_address(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode("ascii")


def _packaged(name: str) -> str:
    source = resources.files("isoflop.report").joinpath("templates", name)
    return source.read_text(encoding="utf-8")
