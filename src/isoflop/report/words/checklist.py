"""What a reader of a scaling study must be told, question by question, answered from the runs.

The questions follow what surveys of published scaling laws found missing most often, and what
changes a fitted law most (arXiv 2502.18969). They and their answers are written in the templates
`checklist/study.txt.jinja` and `checklist/scaling.txt.jinja`, which call `answers` by name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from isoflop.config import BUILT_IN, STALE_NATS, RecipeSettings
from isoflop.fit import ESTIMATOR_NAMES
from isoflop.fit.minima import akima, parabola
from isoflop.fit.settings import HUBER_DELTA
from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.fit.surfaces import huber, projection
from isoflop.fit.surfaces.data import EXPONENTS
from isoflop.fit.variants import DELTAS
from isoflop.report.analysis import HEADLINE, Studied
from isoflop.report.evidence import RUNS
from isoflop.report.scaling import ScalingAnalysis
from isoflop.report.words import answers
from isoflop.report.words.prose import paragraphs, templates
from isoflop.report.words.provenance import environment_of, mixed_environments
from isoflop.report.words.results import ESTIMATOR_WORDS
from isoflop.report.words.scaling import METHOD, refusals

Standing = Literal["disclosed", "not applicable", "missing"]

_CALLED = {
    **vars(answers),
    "BUILT_IN": BUILT_IN,
    "DELTAS": DELTAS,
    "ESTIMATOR_NAMES": ESTIMATOR_NAMES,
    "ESTIMATOR_WORDS": ESTIMATOR_WORDS,
    "EXPONENTS": EXPONENTS,
    "HEADLINE": HEADLINE,
    "HUBER_DELTA": HUBER_DELTA,
    "METHOD": METHOD,
    "PFLOPS_DAY": PFLOPS_DAY,
    "RUNS": RUNS,
    "STALE_NATS": STALE_NATS,
    "USUAL_RATE": RecipeSettings().learning_rate,
    "akima": akima,
    "environment_of": environment_of,
    "huber": huber,
    "mixed_environments": mixed_environments,
    "parabola": parabola,
    "projection": projection,
    "refusals": refusals,
}
"""What the templates call by name."""


@dataclass
class Disclosure:
    """One question, and what the study says to it."""

    question: str
    answer: list[str] = field(default_factory=list)
    """Paragraphs in plain text."""
    standing: Standing = "disclosed"


@dataclass
class Topic:
    """Questions that belong together."""

    title: str
    items: list[Disclosure] = field(default_factory=list)


def checklist(analysis: Studied) -> tuple[Topic, ...]:
    """Return every question with its answer, topic by topic."""
    kind = "scaling" if isinstance(analysis, ScalingAnalysis) else "study"
    template = templates().get_template(f"checklist/{kind}.txt.jinja", globals=_CALLED)
    text = template.render(
        analysis=analysis,
        study=analysis.study,
        evidence=analysis.evidence,
        records=analysis.evidence.records,
        unit=analysis.loss_unit,
    )
    topics: list[Topic] = []
    for paragraph in paragraphs(text):
        mark, said = paragraph[:1], paragraph[2:]
        if mark == "#":
            topics.append(Topic(said))
        elif mark == "?":
            topics[-1].items.append(Disclosure(said))
        elif mark == "!":
            topics[-1].items[-1].standing = cast(Standing, said)
        else:
            topics[-1].items[-1].answer.append(said)
    return tuple(topics)


def standings(topics: Sequence[Topic]) -> Counter[Standing]:
    """Return how many questions have which standing."""
    return Counter(item.standing for topic in topics for item in topic.items)
