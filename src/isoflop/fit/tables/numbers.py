"""Numbers as people write them: 75M, 1.4B, 3,0966, 1 000 000, 6.0e18 FLOPs, 6×10^18."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

MISSING = frozenset(
    ("", "-", "--", "–", "—", "?", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "missing")
)
"""What a cell without a value holds, in lower case."""

Marks = frozenset[str]
"""Which of ',' and '.' were seen to stand before decimals."""

_LONGEST = 200
_BEFORE = re.compile(r"^(?:[A-Za-z]\w{0,9}\s*[=:]\s*|[~≈]\s*)")
"""What may stand before a number: `C = 1e18`, `~75M`."""
_ERROR = re.compile(
    r"(?<=[\d.])\s*(?:(?:±|\+/-|\+-)\s*\d[\d.,]*(?:e-?\d+)?|\(\s*(?:±|\+/-)?\s*\d[\d.,]*\s*\))$"
)
"""What may stand after a number: its error, as in `3.721 ± 0.002` and `3.721 (2)`."""
_SPACED = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'’_](?=\d{3}(?!\d))")
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<body>\d[\d.,]*|[.,]\d+)(?:e(?P<power>[+-]?\d{1,4}))?"
    r"(?P<tail>(?!e\d).*)",  # 1e5e5 is none, while 6 e18 may be meant
    re.IGNORECASE,
)
_BODIES = {
    mark: re.compile(rf"(?:[1-9]\d{{0,2}}(?:[{other}]\d{{3}})+|\d*)(?:[{mark}]\d*)?")
    for mark, other in ((".", ","), (",", "."))
}
"""Digits by the mark before their decimals; the other one parts thousands."""
_SAMPLE = 1000


def missing(value: Any) -> bool:
    """Return whether a cell holds no value."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, str) and value.strip().lower() in MISSING


def table_marks(rows: pd.DataFrame) -> Marks:
    """Return which marks stand before decimals in the first rows of a table."""
    texts = [rows[name] for name in rows.columns if rows[name].dtype.kind not in "biufcmM"]
    return frozenset().union(*(_marks(column[:_SAMPLE]) for column in texts))


def _marks(values: Iterable[Any]) -> Marks:
    """Return which marks stand before decimals, by the values that leave no doubt."""
    found = (_readings(value) for value in values if isinstance(value, str))
    return frozenset(mark for one in found if len(one) == 1 for mark in one)


def numbers(column: pd.Series, marks: Marks = frozenset(), *, small: bool = False) -> pd.Series:
    """Return a column as floats; what is no number becomes NaN.

    `1,234` and `1.234` may be either. The column's other values decide, then those of the table,
    then custom: a comma parts thousands, a point decimals.

    Args:
        column: of a table.
        marks: of the whole table, by `table_marks`.
        small: no value reaches a thousand, as no loss does: such marks stand before decimals.
    """
    if column.dtype.kind in "bmMc":
        return pd.Series(np.nan, index=column.index)
    if column.dtype.kind in "iuf":
        return column.astype("float64")
    known = frozenset(",.") if small else _marks(column) or marks
    return column.astype(object).map(lambda value: number(value, known)).astype("float64")


def number(value: Any, marks: Marks = frozenset()) -> float:
    """Return a single value as a float, NaN where it is none."""
    if isinstance(value, bool):
        return math.nan
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            return math.nan
    found = _readings(value)
    if len(found) < 2:
        return next(iter(found.values()), math.nan)
    own = "," if "," in value else "."
    return found[own if len(marks) == 2 else next(iter(marks), ".")]


def _readings(text: str) -> Mapping[str, float]:
    """Return what a text says by the mark that may stand before its decimals; nothing for none."""
    if len(text) > _LONGEST:
        return {}
    clean = _ERROR.sub("", powers_written_out(text.strip().replace("−", "-")))
    clean = _SPACED.sub("", _BEFORE.sub("", clean))
    found = _NUMBER.fullmatch(clean)
    if found is None:
        try:
            return dict.fromkeys(",.", float(text))  # the infinities
        except ValueError:
            return {}
    after = unit(found["tail"]) if found["tail"].strip() else Unit(1.0)
    if after is None:
        return {}
    body, power = found["body"], found["power"]
    marks = body.strip("0123456789")
    if len(marks) > 1 or not (power or (after.factor != 1 and marks == ".")):
        marks = ",."
    read = {}
    for mark in marks or ",.":
        if _BODIES[mark].fullmatch(body):
            digits = body.replace({",": ".", ".": ","}[mark], "").replace(",", ".")
            # In decimals, so that 132.1M is 132,100,000 and not a little less.
            exact = Decimal(f"{digits}e{power or 0}") * Decimal(after.factor)
            read[mark] = float(f"{found['sign']}1") * float(exact)
    return read


_SCALES = {
    word: 1000.0**power
    for power, words in enumerate(
        (
            "k kilo thousand thousands",
            "m mega mm mn mio mil mill million millions",
            "g giga b bn bln mrd md billion billions",
            "t tera tn trn trillion trillions",
        ),
        start=1,
    )
    for word in words.split()
}
_POWER = re.compile(r"(?:1(?:\.0)?)?e\+?(\d{1,2})")
_PREFIXES = "kmgtpezy"
"""Of FLOPs: beyond trillions, nothing else is told by a letter."""
_FLOPS = re.compile(
    r"(?P<prefix>kilo|mega|giga|tera|peta|exa|zetta|yotta|[kmgtpezy])?"
    r"(?:(?:flops?|f)(?P<days>(?:/s|s|ps| s)?[-*. ]?days?)|flops?)"
)
_COUNTED = re.compile(
    r"\b(?:of|in|params?|parameters|tokens?|tok|weights|nats?|bits?|per|bytes?)\b"
    r"|[#×/]|(?<!\S)x(?!\S)"
)
SECONDS_PER_DAY = 86_400


class Unit(NamedTuple):
    """What a number is to be multiplied by."""

    factor: float
    flops: bool = False
    """Whether it counts floating-point operations, and nothing else."""


def unit(text: str) -> Unit | None:
    """Return the unit that a text names, None where it names none.

    Rates (`TFLOP/s`) and shares (`%`) are none: no number of a run follows from them.
    """
    if len(text) > 40:
        return None
    words = " ".join(powers_written_out(text).replace("_", " ").lower().split())
    words = words.lstrip("x×*·⋅ ").rstrip(".") or words
    power = _POWER.match(words)
    rest = words[power.end() :].strip(" *") if power else words
    factor = 10.0 ** int(power[1]) if power else 1.0
    if flops := _FLOPS.fullmatch(rest):
        if prefix := flops["prefix"]:
            factor *= 1000.0 ** (1 + _PREFIXES.index(prefix[0]))
        return Unit(factor * (SECONDS_PER_DAY if flops["days"] else 1), flops=True)
    counted = " ".join(_COUNTED.sub(" ", rest).split())
    scale, _, what = counted.partition(" ")
    if scale in _SCALES and what in ("", "flop", "flops"):
        return Unit(factor * _SCALES[scale], flops=bool(what))
    # "params" beside a number says what is counted; alone in a header it is the name.
    return Unit(factor) if not counted and (power or rest) else None


def powers_written_out(text: str) -> str:
    """Return a text with 6×10¹⁸ as 6e18, and 10^18 as 1e18."""
    plain = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda one: "^" + one[0].translate(plain), text)
    text = re.sub(r"(?<=\d)\s*[x×*·⋅]\s*10(?:\^|\*\*)\s*(?=[+-]?\d)", "e", text)
    return re.sub(r"(?<!\d)10(?:\^|\*\*)\s*(?=[+-]?\d)", "1e", text)
