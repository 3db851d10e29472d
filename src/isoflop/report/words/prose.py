"""Sentences from templates, whose lines are paragraphs, and indented ones go on with the last."""

from __future__ import annotations

import functools
from statistics import mean

from jinja2 import Environment, PackageLoader, StrictUndefined

from isoflop.config import BUILT_IN, STALE_NATS, RecipeSettings
from isoflop.fit import ESTIMATOR_NAMES, intervals, sentence
from isoflop.fit.minima import akima, parabola
from isoflop.fit.search import plain
from isoflop.fit.settings import HUBER_DELTA
from isoflop.fit.spans.values import PFLOPS_DAY
from isoflop.fit.surfaces import huber, projection
from isoflop.fit.surfaces.data import EXPONENTS
from isoflop.fit.variants import DELTAS
from isoflop.fit.words import estimates_sentence, fraction_sentence
from isoflop.notation import count, percent, scientific, written
from isoflop.report.analysis import HEADLINE, SMALLEST_BUDGET_FLOPS
from isoflop.report.evidence import RUNS
from isoflop.report.words import answers, provenance
from isoflop.text import visible

_CALLED = {
    **vars(answers),
    **vars(provenance),
    "BUILT_IN": BUILT_IN,
    "DELTAS": DELTAS,
    "ESTIMATOR_NAMES": ESTIMATOR_NAMES,
    "EXPONENTS": EXPONENTS,
    "HEADLINE": HEADLINE,
    "HUBER_DELTA": HUBER_DELTA,
    "PFLOPS_DAY": PFLOPS_DAY,
    "RUNS": RUNS,
    "SMALLEST_BUDGET_FLOPS": SMALLEST_BUDGET_FLOPS,
    "STALE_NATS": STALE_NATS,
    "USUAL_RATE": RecipeSettings().learning_rate,
    "akima": akima,
    "count": count,
    "estimates_sentence": estimates_sentence,
    "fraction_sentence": fraction_sentence,
    "huber": huber,
    "intervals": intervals,
    "mean": mean,
    "parabola": parabola,
    "percent": percent,
    "plain": plain,
    "projection": projection,
    "scientific": scientific,
    "sentence": sentence,
}
"""What templates call by name."""


def told(template: str, macro: str, *given: object) -> tuple[str, ...]:
    """Return the sentences of a template's macro, which calls functions by name."""
    module = templates().get_template(f"words/{template}.txt.jinja").module
    return paragraphs(str(getattr(module, macro)(*given)))


def caption(macro: str, *given: object) -> str:
    """Return how to read a figure or a table."""
    return told("captions", macro, *given)[0]


def paragraphs(text: str) -> tuple[str, ...]:
    """Return the paragraphs of what a template wrote, each on one line."""
    found: list[str] = []
    for line in filter(str.strip, text.splitlines()):
        if line.startswith(" "):
            found[-1] += f" {line.strip()}"
        else:
            found.append(line.strip())
    return tuple(found)


@functools.cache
def templates() -> Environment:
    """Return the package's templates of plain text, which a page escapes."""
    found = Environment(
        loader=PackageLoader("isoflop.report"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_on_one_line,
    )
    found.globals |= _CALLED
    found.filters |= {"count": count, "general": "{:g}".format, "scientific": scientific}
    found.filters |= {"listed": answers.listed, "ordinal": answers.ordinal, "written": written}
    return found


def _on_one_line(value: object) -> object:
    """Keep what a template prints within its line, so that no value is taken for a question."""
    return visible(value.replace("\n", " ")) if isinstance(value, str) else value
