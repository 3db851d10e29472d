"""Units that stand beside numbers and in names of columns: M, billion, 1e18, PFLOP/s-days."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
