"""How numbers are written for people: 250M parameters, 5e12 as a power of ten."""

from __future__ import annotations

import math
from collections.abc import Callable

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))


def count(value: float, digits: int = 3) -> str:
    """Return a number of parameters or tokens with a unit: 328,704 becomes 329K."""
    for unit, letter in _UNITS:
        if abs(value) >= unit * (1 - 0.5 * 10**-digits):
            return f"{_trimmed(significant(value / unit, digits))}{letter}"
    return _trimmed(significant(value, digits))


def scientific(value: float, digits: int = 2, *, trim: bool = True) -> str:
    """Return a number as a power of ten: 5e12 becomes 5, a times sign, ten to the twelfth.

    Without `trim` all `digits` stay, so that the numbers of a column line up.
    """
    if value == 0:
        return "0"
    mantissa, ten = exponent(value, digits, trim=trim).split("e")
    power = "10" + ten.translate(_SUPERSCRIPT)
    return power if mantissa == "1" else f"{mantissa}\N{MULTIPLICATION SIGN}{power}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share as a percentage: 0.0123 becomes 1.2%."""
    return f"{100 * share:.{digits}f}%"


def written(value: float, form: str | Callable[[float], str]) -> str:
    """Return a number as a format or a function writes it, but no other one as zero: -3e-05."""
    if not isinstance(form, str):
        return form(value)
    told = format(value or abs(value), form)
    return told if told.strip("+-0.,") or not value else format(value, f"{form[:-2]}1g")


def exponent(value: float, digits: int = 3, *, trim: bool = True) -> str:
    """Return a number in e-notation for charts and file names: 5e12, 1.6e13.

    Superscript digits are missing from many fonts, which would mix typefaces in a picture.
    """
    if value == 0:
        return "0"
    mantissa, power = f"{value:.{digits - 1}e}".split("e")
    if trim and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(power)}"


def significant(value: float, digits: int = 3) -> str:
    """Return a number with so many digits, zeros kept: 3 becomes 3.00."""
    decimals = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:,.{decimals}f}"


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """Return a time as a person says it: 42 s, 3 min 05 s, 2 h 07 min, 3 d 08 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"
