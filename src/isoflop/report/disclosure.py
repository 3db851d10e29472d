"""What a reader of a scaling study must be told, question by question, answered from the runs.

The questions follow what surveys of published scaling laws found missing most often, and what
changes a fitted law most (arXiv 2502.18969).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import pandas as pd

from isoflop.config import PrecisionChoice, RunRecord, Study
from isoflop.report.provenance import LeftOut

T = TypeVar("T", bound=Hashable)

Standing = Literal["disclosed", "not applicable", "missing"]


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


class Measured(Protocol):
    """What every analysis of a study has."""

    @property
    def study(self) -> Study:
        """What was studied."""

    @property
    def table(self) -> pd.DataFrame:
        """The runs that figures show, as `isoflop.fit.frame` makes it."""


@dataclass(frozen=True)
class RecipeSearch:
    """How many trials of a recipe were trained."""

    declared: Mapping[str, int]
    """Trials that the study names, by variant."""
    finished: Mapping[str, int]
    """How many of these have a loss."""
    further_runs: int = 0
    """Recorded runs of trials that the study, as it is now, does not name."""


@dataclass(frozen=True)
class Evidence:
    """What the answers are taken from besides the fitted records."""

    records: Sequence[RunRecord]
    missing: Sequence[LeftOut] = ()
    """Runs that have no record yet."""
    search: RecipeSearch | None = None
    train_tokens: int | None = None
    """Tokens of the training split; None where the corpus of these runs is not at hand."""
    runs_sha256: str = ""
    """Of the table of runs that is beside the page."""
    precision: PrecisionChoice | None = None
    """What the precision was chosen by; None where the study's file names it."""


def standings(topics: Sequence[Topic]) -> Counter[Standing]:
    """Return how many questions have which standing."""
    return Counter(item.standing for topic in topics for item in topic.items)


def by_variant(
    study: Study, values: Mapping[str, T], shown: Callable[[T], str] = str
) -> tuple[str, ...]:
    """Return one line per variant, or one for all where they agree."""
    found = [(one.name, values[one.name]) for one in study.variants if one.name in values]
    if len(found) > 1 and len({value for _, value in found}) == 1:
        return (f"Every variant: {shown(found[0][1])}",)
    return tuple(f"{name}: {shown(value)}" for name, value in found)


def spanned(values: Sequence[float], shown: Callable[[float], str]) -> str:
    """Return a range in words: 'X', or 'X to Y'."""
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: '1 run', '2 runs'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
