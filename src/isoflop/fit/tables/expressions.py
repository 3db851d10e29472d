"""Arithmetic on columns, as in `step*batch_tokens`: a small grammar, and nothing is executed.

Numbers, columns, brackets, `FUNCTIONS`, a minus before a value, and `OPERATORS`, of which powers
associate to the right. A column is written as it is, or in double quotes or backticks. Of the
columns that a text may begin with the longest is meant, so that `eval/loss*2` is twice the column
`eval/loss` where there is one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from isoflop.fit.tables.names import names_of
from isoflop.fit.tables.numbers import Marks, numbers

LONGEST = 500
DEEPEST = 40

FUNCTIONS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "log": np.log,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "sqrt": np.sqrt,
}
OPERATORS: dict[str, tuple[int, Callable[[pd.Series, pd.Series], pd.Series]]] = {
    "+": (1, operator.add),
    "-": (1, operator.sub),
    "*": (2, operator.mul),
    "/": (2, operator.truediv),
    "^": (4, operator.pow),
    "**": (4, operator.pow),
}
"""How strongly each binds, and what it does."""
_MINUS, _POWER = 3, 4

_NUMBER = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w)"
_OPERATOR = re.compile(r"\s*(\*\*|[-+*/^])")
_CALL = re.compile(r"([^\W\d]\w*)\s*\(")
_NAME = re.compile(r"[^\W\d]\w*")
_WHOLE = r"(?!(?<=\w)\w)"
"""After a column's name: no longer word stands here."""


@dataclass
class _Parser:
    """Reads a text from its beginning, computing as it goes."""

    text: str
    rows: pd.DataFrame
    marks: Marks
    at: int = 0
    used: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = [one for one in names_of(self.rows) if _NAME.match(one)]
        ends = (f"{re.escape(one)}{_WHOLE}" for one in sorted(names, key=len, reverse=True))
        self.columns = re.compile("|".join(ends) or "(?!)")

    def value(self, least: int, depth: int) -> pd.Series:
        """Read a value and what operators that bind at least so strongly do with it."""
        if depth > DEEPEST:
            raise self.wrong("it is nested too deeply")
        left = -self.value(_MINUS, depth + 1) if self.taken("-") else self.atom(depth)
        while found := _OPERATOR.match(self.text, self.at):
            strength, compute = OPERATORS[found[1]]
            if strength < least:
                break
            self.at = found.end()
            left = compute(left, self.value(strength + (strength != _POWER), depth + 1))
        return left

    def atom(self, depth: int) -> pd.Series:
        if self.taken(r"\("):
            return self.closed(depth)
        if quote := self.taken('["`]'):
            end = self.text.find(quote, self.at)
            if end < 0:
                raise self.wrong(f"expected another {quote}")
            name = self.text[self.at : end]
            if name not in self.rows:
                raise self.wrong(f"there is no column {name!r}")
            return self.column(name, end + 1)
        self.taken("")
        column = self.columns.match(self.text, self.at)
        call = _CALL.match(self.text, self.at)
        if call and call[1] in FUNCTIONS and not (column and len(column[0]) > len(call[1])):
            self.at = call.end()
            return FUNCTIONS[call[1]](self.closed(depth))
        if column:
            return self.column(column[0], column.end())
        if number := self.taken(_NUMBER):
            return pd.Series(float(number), index=self.rows.index)
        word = _NAME.match(self.text, self.at)
        raise self.wrong(
            f"there is no column {word[0]!r}" if word else "expected a column, a number or ("
        )

    def closed(self, depth: int) -> pd.Series:
        value = self.value(0, depth + 1)
        if not self.taken(r"\)"):
            raise self.wrong("expected )")
        return value

    def column(self, name: str, end: int) -> pd.Series:
        self.at = end
        self.used.append(name)
        return numbers(self.rows[name], self.marks)

    def taken(self, pattern: str) -> str | None:
        """Return what stands here and go on behind it, None where it is not that."""
        found = re.compile(rf"\s*({pattern})").match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[1] if found else None

    def wrong(self, expected: str) -> ValueError:
        self.taken(r"\s*")
        return ValueError(f"{self.text!r} at character {self.at + 1}: {expected}")


def evaluate(
    text: str, rows: pd.DataFrame, marks: Marks = frozenset()
) -> tuple[pd.Series, tuple[str, ...]]:
    """Return what an expression is in every row, and the columns that it names.

    Args:
        text: the expression.
        rows: of a table, its names as text; a cell without a number is NaN.
        marks: of the table, as `numbers` takes them.

    Raises:
        ValueError: the text is no such expression; in one line with the position.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{text[:40]!r}... has {len(text)} characters; expected up to {LONGEST}")
    parser = _Parser(text.strip(), rows, marks)
    with np.errstate(all="ignore"):
        value = parser.value(0, 0)
    if parser.at < len(parser.text):
        raise parser.wrong("expected an operator")
    return value, tuple(dict.fromkeys(parser.used))
