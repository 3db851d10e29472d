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

from isoflop.report.analysis import Studied
from isoflop.report.words.prose import paragraphs, templates

Standing = Literal["disclosed", "not applicable", "missing"]


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
    text = (
        templates()
        .get_template(f"checklist/{analysis.kind}.txt.jinja")
        .render(
            analysis=analysis,
            study=analysis.study,
            evidence=analysis.evidence,
            records=analysis.evidence.records,
            unit=analysis.loss_unit,
        )
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
