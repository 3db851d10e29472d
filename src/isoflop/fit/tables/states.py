"""Which words for the state of a run, and which flags, mean that it has finished."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.names import plain
from isoflop.fit.tables.numbers import missing

UNKNOWN = "its state is none that is known"

_FINISHED = re.compile(
    r"finish(?:ed)?|completed?|success(?:ful)?|succeeded|done|ok|ended|passed|true|yes",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(
    r"fail(?:ed|ure)?|crash(?:ed)?|killed|running|pending|queued|scheduled|starting|created"
    r"|cancell?ed|preempt(?:ed|ing)|diverged|nan|oom|out of memory|time(?:d )?out|error(?:ed)?"
    r"|aborted|interrupted|stopped|suspended|unfinished|incomplete|not (?:finished|started)"
    r"|node fail|false|no",
    re.IGNORECASE,
)

_FLAGS: Mapping[str, bool] = {
    **dict.fromkeys(
        ("success", "successful", "succeeded", "finished", "completed", "is_finished", "done"), True
    ),
    **dict.fromkeys(
        ("failed", "failure", "is_failed", "crashed", "diverged", "is_diverged", "has_nan"), False
    ),
}
"""Columns of yes and no, and what they hold for a run that has finished."""
_YES_OR_NO = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def flagged(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return for each column of flags which runs have not finished by it.

    A column that has anything but yes and no, or by which none has finished, is no such flag; a
    run without a value is taken to have finished.
    """
    found = {}
    for column in rows:
        finished = _FLAGS.get(plain(re.split(r"[./:]", str(column))[-1]))
        if finished is None:
            continue
        cells = [cell for cell in rows[column] if not missing(cell)]
        said = [_YES_OR_NO.get(_flag(cell)) for cell in cells]
        if finished not in said or None in said:
            continue
        wrong = [not missing(cell) and _YES_OR_NO[_flag(cell)] != finished for cell in rows[column]]
        found[str(column)] = np.array(wrong, dtype=bool)
    return found


def _flag(cell: Any) -> str:
    return re.sub(r"\.0$", "", str(cell).strip().lower())


def why_not(state: Any) -> str:
    """Return why a run in this state is left out, '' where it has finished."""
    word = " ".join(re.split(r"[\s_-]+", str(state).strip()))
    if missing(state) and not (isinstance(state, str) and _UNFINISHED.fullmatch(word)):
        return "its state is missing"
    if _FINISHED.fullmatch(word):
        return ""
    if _UNFINISHED.fullmatch(word):
        return "the run has not finished"
    return UNKNOWN
