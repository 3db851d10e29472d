"""What a reader of a scaling study must be told, question by question, answered from the runs.

The questions follow what surveys of published scaling laws found missing most often, and what
changes a fitted law most (arXiv 2502.18969). They and their answers are written in the templates
`checklist/study.txt.jinja` and `checklist/scaling.txt.jinja`, which call `answers` by name.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from jinja2 import Environment, PackageLoader, StrictUndefined

from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.fit.surfaces.data import EXPONENTS
from isoflop.fit.variants import DELTAS
from isoflop.notation import count, percent, scientific
from isoflop.report.analysis import HEADLINE, Studied
from isoflop.report.evidence import RUNS
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.words import answers
from isoflop.report.words.provenance import environment_of, mixed_environments
from isoflop.report.words.results import ESTIMATOR_WORDS
from isoflop.report.words.prose import listed
from isoflop.report.words.scaling import METHOD, refusals
from isoflop.text import visible

Standing = Literal["disclosed", "not applicable", "missing"]

_FUNCTIONS = (count, percent, scientific, environment_of, mixed_environments, listed, refusals)
_CALLED = {
    **vars(answers),
    **{one.__name__: one for one in _FUNCTIONS},
    "DELTAS": DELTAS,
    "ESTIMATOR_WORDS": ESTIMATOR_WORDS,
    "EXPONENTS": EXPONENTS,
    "HEADLINE": HEADLINE,
    "METHOD": METHOD,
    "PFLOPS_DAY": PFLOPS_DAY,
    "RUNS": RUNS,
}
"""What the templates call by name."""


@dataclass(frozen=True)
class Disclosure:
    """One question, and what the study says to it."""

    question: str
    answer: tuple[str, ...]
    """Paragraphs in plain text."""
    standing: Standing = "disclosed"


@dataclass(frozen=True)
class Topic:
    """Questions that belong together."""

    title: str
    items: tuple[Disclosure, ...]


def checklist(analysis: Studied) -> tuple[Topic, ...]:
    """Return every question with its answer, topic by topic."""
    kind = "scaling" if isinstance(analysis, ScalingAnalysis) else "study"
    text = (
        _templates()
        .get_template(f"checklist/{kind}.txt.jinja")
        .render(
            analysis=analysis,
            study=analysis.study,
            evidence=analysis.evidence,
            records=analysis.evidence.records,
            unit=analysis.loss_unit,
        )
    )
    return tuple(_topics(text))


def standings(topics: Sequence[Topic]) -> Counter[Standing]:
    """Return how many questions have which standing."""
    return Counter(item.standing for topic in topics for item in topic.items)


def _topics(text: str) -> Iterator[Topic]:
    """Read a filled-in template; see its first lines for what marks a line."""
    topics: list[tuple[str, list[tuple[str, list[str], list[str]]]]] = []
    for line in filter(str.strip, text.splitlines()):
        mark, said = line[:2], line[2:].strip()
        if mark == "# ":
            topics.append((said, []))
        elif mark == "? ":
            topics[-1][1].append((said, [], []))
        else:
            _, answer, standing = topics[-1][1][-1]
            if mark == "! ":
                standing.append(said)
            elif mark == "- ":
                answer.append(said)
            else:
                answer[-1] += f" {said}"
    for title, items in topics:
        yield Topic(
            title,
            tuple(
                Disclosure(
                    question,
                    tuple(answer),
                    cast(Standing, standing[0] if standing else "disclosed"),
                )
                for question, answer, standing in items
            ),
        )


@functools.cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("isoflop.report"),
        autoescape=False,  # plain text, which a page escapes
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
    )
    found.filters["general"] = "{:g}".format
    found.globals |= _CALLED
    return found


def _on_one_line(value: object) -> object:
    """Keep what a template prints within its line, so that no value is taken for a question."""
    return visible(value.replace("\n", " ")) if isinstance(value, str) else value
