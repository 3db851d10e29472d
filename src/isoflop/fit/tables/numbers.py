"""Numbers as people write them: 75M, 1.4B, 3,0966, 1 000 000, 6.0e18 FLOPs, 6×10^18."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

MISSING = frozenset(
    ("", "-", "--", "–", "—", "?", "na", "n/a", "#n/a", "<na>", "nan", "none", "null", "missing")
)
"""What a cell without a value holds, in lower case."""

Marks = frozenset[str]
"""Which of ',' and '.' were seen to stand before decimals."""

_LONGEST = 80
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)(?P<body>\d[\d.,]*|[.,]\d+)"
    r"(?:e(?P<exponent>[+-]?\d{1,4})|\s*[x×*·⋅]\s*10(?:\^|\*\*)\s*(?P<power>[+-]?\d{1,4}))?"
    r"(?P<tail>.*)",
    re.IGNORECASE,
)
_BARE_POWER = re.compile(r"10(?:\^|\*\*)\s*(\d{1,4})(?P<tail>.*)")
_SPACED = re.compile(r"(?<=\d)[ \u00a0\u2009\u202f'’_](?=\d{3}(?!\d))")
_BEFORE = re.compile(r"[A-Za-z]\w{0,9}\s*[=:]\s*|[~≈]\s*")
"""What may stand before a number: `C = 1e18`, `~75M`."""
_ERROR = re.compile(
    r"(?<=[\d.])\s*(?:(?:±|\+/-|\+-)\s*\d[\d.,]*(?:e-?\d+)?|\(\s*(?:±|\+/-)?\s*\d[\d.,]*\s*\))$"
)
"""What may stand after a number: its error, as in `3.721 ± 0.002` and `3.721 (2)`."""
_SAMPLE = 1000


@dataclass(frozen=True)
class _Shape:
    """A number as written: how its marks can be read."""

    sign: float
    body: str
    exponent: str
    factor: float
    mark: str
    """Before decimals, where the text alone tells; '' where there is none, '?' where unclear."""


def missing(value: Any) -> bool:
    """Return whether a cell holds no value."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return isinstance(value, str) and value.strip().lower() in MISSING


def decimal_marks(values: Iterable[Any]) -> Marks:
    """Return which marks stand before decimals, by the values that leave no doubt."""
    found = set()
    for value in values:
        shape = _shape(value) if isinstance(value, str) else None
        if shape is not None and shape.mark in (",", "."):
            found.add(shape.mark)
        elif shape is not None and shape.mark == "" and "," in shape.body:
            found.add(".")
        elif shape is not None and shape.mark == "" and "." in shape.body:
            found.add(",")
    return frozenset(found)


def table_marks(rows: pd.DataFrame) -> Marks:
    """Return which marks stand before decimals in the first rows of a table."""
    found: set[str] = set()
    for position in range(rows.shape[1]):
        column = rows.iloc[:_SAMPLE, position]
        if column.dtype.kind not in "biufcmM":  # text
            found |= decimal_marks(column)
    return frozenset(found)


def numbers(
    column: pd.Series, marks: Marks = frozenset(), *, small: bool = False, scaled: bool = False
) -> pd.Series:
    """Return a column as floats; what is no number becomes NaN.

    `1,234` and `1.234` may be either. The column's other values decide, then those of the table,
    then custom: a comma parts thousands, a point decimals.

    Args:
        column: of a table.
        marks: of the whole table, by `table_marks`.
        small: no value reaches a thousand, as no loss does: such marks stand before decimals.
        scaled: the header has a unit, as in `params (M)`: a point stands before decimals.
    """
    if column.dtype.kind in "bmMc":
        return pd.Series(np.nan, index=column.index)
    if column.dtype.kind in "iuf":
        return column.astype("float64")
    own = decimal_marks(column)
    known = own or marks
    if small:
        known = frozenset(",.")
    elif scaled:
        known |= {"."}
    return column.astype(object).map(lambda value: _number(value, known)).astype("float64")


def number(value: Any) -> float:
    """Return a single value as a float, NaN where it is none."""
    return _number(value, frozenset())


def _number(value: Any, marks: Marks) -> float:
    if isinstance(value, bool):
        return math.nan
    if not isinstance(value, str):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            return math.nan
    shape = _shape(value)
    if shape is None:
        return _plain(value)
    mark = shape.mark
    if mark == "?":
        (only,) = {",", "."} & set(shape.body)
        # Where nothing tells, a comma parts thousands and a point decimals.
        other = "." if only == "," else ","
        decimals = only in marks or (other not in marks and only == ".")
        mark = only if decimals else ""
    thousands = {",", "."} - {mark}
    body = "".join(c for c in shape.body if c not in thousands).replace(",", ".")
    # In decimals, so that 132.1M is 132,100,000 and not a little less.
    exact = Decimal(f"{body}{shape.exponent}") * Decimal(shape.factor)
    return shape.sign * float(exact)


def _plain(text: str) -> float:
    if len(text) > 10 * _LONGEST:
        return math.nan
    try:
        return float(text)
    except ValueError:
        return math.nan


def _shape(text: str) -> _Shape | None:
    """Return how a number is written, None where the text is none."""
    if len(text) > _LONGEST:
        return None
    clean = superscripts_written_out(text.strip().replace("−", "-"))
    clean = _ERROR.sub("", clean)
    clean = _SPACED.sub("", _BEFORE.sub("", clean, count=1) if _BEFORE.match(clean) else clean)
    bare = _BARE_POWER.fullmatch(clean)
    if bare:
        factor = _tail_factor(bare["tail"])
        return None if factor is None else _Shape(1.0, "1", f"e{bare[1]}", factor, "")
    found = _NUMBER.fullmatch(clean)
    factor = _tail_factor(found["tail"]) if found else None
    if found is None or factor is None:
        return None
    power = found["exponent"] or found["power"]
    mark = _mark(found["body"], power=bool(power), scaled=factor != 1)
    if mark is None:
        return None
    sign = -1.0 if found["sign"] == "-" else 1.0
    return _Shape(sign, found["body"], f"e{power}" if power else "", factor, mark)


def _tail_factor(tail: str) -> float | None:
    """Return what the words after a number multiply it by, None where they are no unit."""
    if not tail.strip():
        return 1.0
    if re.match(r"e\d", tail, re.IGNORECASE):
        return None  # 1e5e5, while 6 e18 may be meant
    found = unit(tail)
    return None if found is None else found.factor


def _mark(body: str, *, power: bool, scaled: bool) -> str | None:
    """Return the mark before decimals, '' for none, '?' where unclear, None for no number."""
    commas, points = body.count(","), body.count(".")
    if not commas and not points:
        return ""
    if commas and points:
        mark = "," if body.rindex(",") > body.rindex(".") else "."
        whole, _, _ = body.partition(mark)
        return mark if body.count(mark) == 1 and _grouped(whole) else None
    if commas + points > 1:
        return "" if _grouped(body) else None
    only = "," if commas else "."
    if power or body.startswith("0") or not _grouped(body) or (scaled and only == "."):
        return only
    return "?"


def _grouped(body: str) -> bool:
    """Return whether marks part a number into groups of three digits."""
    return re.fullmatch(r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:\.\d{3})+", body) is not None


_WORDS = {
    1e3: ("k", "thousand", "thousands", "kilo"),
    1e6: ("m", "mm", "mn", "mio", "mil", "mill", "million", "millions", "mega"),
    1e9: ("b", "g", "bn", "bln", "mrd", "md", "billion", "billions", "giga"),
    1e12: ("t", "tn", "trn", "trillion", "trillions", "tera"),
}
_SCALES = {word: factor for factor, words in _WORDS.items() for word in words}
_PREFIXES = {
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "t": 1e12,
    "p": 1e15,
    "e": 1e18,
    "z": 1e21,
    "y": 1e24,
    "kilo": 1e3,
    "mega": 1e6,
    "giga": 1e9,
    "tera": 1e12,
    "peta": 1e15,
    "exa": 1e18,
    "zetta": 1e21,
    "yotta": 1e24,
}
_POWER = re.compile(r"(?:1(?:\.0)?e|10(?:\^|\*\*)|e)\+?(\d{1,2})")
_FLOPS = re.compile(
    r"(?P<prefix>kilo|mega|giga|tera|peta|exa|zetta|yotta|[kmgtpezy])?"
    r"(?:(?:flops?|f)(?P<days>(?:/s|s|ps| s)?[-*. ]?days?)|flops?)"
)
_COUNTED = re.compile(r"\b(?:of|in|params?|parameters|tokens?|tok|weights)\b|[#×]|(?<!\S)x(?!\S)")
_LOSS = re.compile(r"(?:nats?|bits?)(?:\s*(?:/|per)\s*(?:token|tok|byte|character|char))?|bpb|bpc")
SECONDS_PER_DAY = 86_400
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")


@dataclass(frozen=True)
class Unit:
    """What a number is to be multiplied by, and how that is written."""

    factor: float
    words: str
    flops: bool = False
    """Whether it counts floating-point operations, and nothing else."""
    loss: bool = False
    """Whether it is one of losses, which stay as they are."""


def unit(text: str) -> Unit | None:
    """Return the unit that a text names, None where it names none.

    Rates (`TFLOP/s`) and shares (`%`) are none: no number of a run follows from them.
    """
    if len(text) > 40:
        return None
    words = " ".join(superscripts_written_out(text).replace("_", " ").split())
    lower = words.lower().lstrip("x×*·⋅ ").rstrip(".") or words.lower()
    if _LOSS.fullmatch(lower):
        return Unit(1.0, words, loss=True)
    power = _POWER.match(lower)
    rest = lower[power.end() :].strip(" *") if power else lower
    scale = 10.0 ** int(power[1]) if power else 1.0
    flops = _FLOPS.fullmatch(rest)
    if flops:
        factor = scale * _PREFIXES.get(flops["prefix"] or "", 1.0)
        days = SECONDS_PER_DAY if flops["days"] else 1
        return Unit(factor * days, words, flops=True)
    counted = " ".join(_COUNTED.sub(" ", rest).split())
    if counted in _SCALES:
        return Unit(scale * _SCALES[counted], words)
    scaled, _, what = counted.partition(" ")
    if scaled in _SCALES and re.fullmatch(r"flops?", what):
        return Unit(scale * _SCALES[scaled], words, flops=True)
    if counted == "" and (power or rest):
        # "params" beside a number says what is counted; alone in a header it is the name.
        return Unit(scale, words)
    return None


def superscripts_written_out(text: str) -> str:
    """Return a text with 10¹⁸ as 10^18."""
    return re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+", lambda one: "^" + one[0].translate(SUPERSCRIPTS), text)
