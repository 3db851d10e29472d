"""Arithmetic on columns, as in `step*batch_tokens`: a small grammar, and nothing is executed.

    sum     = product (("+" | "-") product)*
    product = signed (("*" | "/") signed)*
    signed  = "-" signed | power
    power   = atom (("^" | "**") signed)?
    atom    = number | column | function "(" sum ")" | "(" sum ")"

A column is written as it is, or in double quotes or backticks. Of the columns that a text may begin
with the longest is meant, so that `eval/loss*2` is twice the column `eval/loss` where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

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

_NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?(?!\w)")
_NAME = re.compile(r"[^\W\d]\w*")
_Values = pd.Series


@dataclass
class _Parser:
    """Reads a text from its beginning, computing as it goes."""

    text: str
    names: Sequence[str]
    """Of the columns, the longest first."""
    values_of: Callable[[str], _Values]
    index: pd.Index
    at: int = 0
    used: list[str] = field(default_factory=list)

    def whole(self) -> _Values:
        value = self.sum(0)
        if self.at < len(self.text):
            raise self.wrong("expected an operator")
        return value

    def sum(self, depth: int) -> _Values:
        if depth > DEEPEST:
            raise self.wrong("it is nested too deeply")
        value = self.product(depth)
        while sign := self.taken("+", "-"):
            other = self.product(depth)
            value = value + other if sign == "+" else value - other
        return value

    def product(self, depth: int) -> _Values:
        value = self.signed(depth)
        while (sign := self.taken("*", "/")) is not None:
            other = self.signed(depth)
            value = value * other if sign == "*" else value / other
        return value

    def signed(self, depth: int) -> _Values:
        if depth > DEEPEST:
            raise self.wrong("it is nested too deeply")
        if self.taken("-"):
            return -self.signed(depth + 1)
        base = self.atom(depth)
        if self.taken("^", "**"):
            return base ** self.signed(depth + 1)
        return base

    def atom(self, depth: int) -> _Values:
        if self.taken("("):
            return self.closed(depth)
        quote = self.taken('"', "`")
        if quote:
            end = self.text.find(quote, self.at)
            if end < 0:
                raise self.wrong(f"expected another {quote}")
            name, begin, self.at = self.text[self.at : end], self.at, end + 1
            if name not in self.names:
                self.at = begin
                raise self.wrong(f"there is no column {name!r}")
            return self.column(name)
        name = next((one for one in self.names if self.begins(one)), "")
        word = _NAME.match(self.text, self.at)
        if word and word[0] in FUNCTIONS and len(word[0]) >= len(name):
            after = self.text[word.end() :].lstrip()
            if after.startswith("("):
                self.at = word.end()
                self.taken("(")
                return FUNCTIONS[word[0]](self.closed(depth))
        if name:
            self.at += len(name)
            return self.column(name)
        number = _NUMBER.match(self.text, self.at)
        if number:
            self.at = number.end()
            return pd.Series(float(number[0]), index=self.index)
        if word:
            raise self.wrong(f"there is no column {word[0]!r}")
        raise self.wrong("expected a column, a number or (")

    def closed(self, depth: int) -> _Values:
        value = self.sum(depth + 1)
        if not self.taken(")"):
            raise self.wrong("expected )")
        return value

    def column(self, name: str) -> _Values:
        self.used.append(name)
        return self.values_of(name)

    def begins(self, name: str) -> bool:
        """Return whether a column's name stands here, and no longer word."""
        if not _NAME.match(name) or not self.text.startswith(name, self.at):
            return False
        following = self.text[self.at + len(name) : self.at + len(name) + 1]
        return not (re.match(r"\w", following) and re.match(r"\w", name[-1]))

    def taken(self, *signs: str) -> str | None:
        """Return the sign that stands here and go on behind it, None where there is another."""
        self.at += len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
        for sign in signs:
            power = sign == "*" and self.text.startswith("**", self.at)
            if self.text.startswith(sign, self.at) and not power:
                self.at += len(sign)
                self.at += len(self.text[self.at :]) - len(self.text[self.at :].lstrip())
                return sign
        return None

    def wrong(self, expected: str) -> ValueError:
        return ValueError(f"{self.text!r} at character {self.at + 1}: {expected}")


def evaluate(
    text: str, names: Sequence[str], values_of: Callable[[str], pd.Series], index: pd.Index
) -> tuple[pd.Series, tuple[str, ...]]:
    """Return what an expression is in every row, and the columns that it names.

    Args:
        text: the expression.
        names: of the table's columns.
        values_of: returns a column's numbers, NaN where it has none.
        index: of the rows.

    Raises:
        ValueError: the text is no such expression; in one line with the position.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{text[:40]!r}... has {len(text)} characters; expected up to {LONGEST}")
    ordered = sorted(dict.fromkeys(names), key=len, reverse=True)
    parser = _Parser(text.strip(), ordered, values_of, index)
    with np.errstate(all="ignore"):
        value = parser.whole()
    return value, tuple(dict.fromkeys(parser.used))
