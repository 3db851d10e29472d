"""Which words for the state of a run mean that it has finished."""

from __future__ import annotations

import re
from typing import Any

from isoflop.fit.tables.numbers import missing

_FINISHED = re.compile(
    r"finish(?:ed)?|completed?|success(?:ful)?|succeeded|done|ok|ended|passed", re.IGNORECASE
)
_UNFINISHED = re.compile(
    r"fail(?:ed|ure)?|crash(?:ed)?|killed|running|pending|queued|scheduled|starting|created"
    r"|cancell?ed|preempt(?:ed|ing)|diverged|nan|oom|out of memory|time(?:d )?out|error(?:ed)?"
    r"|aborted|interrupted|stopped|suspended|unfinished|incomplete|not (?:finished|started)"
    r"|node fail",
    re.IGNORECASE,
)


def why_not(state: Any) -> str:
    """Return why a run in this state is left out, '' where it has finished."""
    word = " ".join(re.split(r"[\s_-]+", str(state).strip()))
    if missing(state) and not (isinstance(state, str) and _UNFINISHED.fullmatch(word)):
        return "its state is missing"
    if _FINISHED.fullmatch(word):
        return ""
    if _UNFINISHED.fullmatch(word):
        return "the run has not finished"
    return "its state is none that is known"
