"""Sentences from templates, whose lines are paragraphs, and indented ones go on with the last."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from isoflop.notation import count, percent, scientific
from isoflop.text import visible


def told(
    template: str, macro: str, called: Mapping[str, object], *given: object
) -> tuple[str, ...]:
    """Return the sentences of a template's macro, which calls what is `called` by name."""
    found = templates().get_template(f"words/{template}.txt.jinja", globals=dict(called))
    return paragraphs(str(getattr(found.module, macro)(*given)))


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
    found.filters |= {"general": "{:g}".format, "listed": listed, "ordinal": _ordinal}
    found.filters["scientific"] = scientific
    found.globals |= {"count": count, "percent": percent, "scientific": scientific}
    return found


def listed(parts: Iterable[str]) -> str:
    """Return several things in words: a, b and c."""
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def _ordinal(number: int) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10 if number % 100 not in (11, 12, 13) else 0)
    return f"{number}{ending or 'th'}"


def _on_one_line(value: object) -> object:
    """Keep what a template prints within its line, so that no value is taken for a question."""
    return visible(value.replace("\n", " ")) if isinstance(value, str) else value
