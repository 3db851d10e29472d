from __future__ import annotations

import pytest

from isoflop.notation import count, exponent, scientific, significant
from isoflop.report.theme import log_ticks
from isoflop.text import visible


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (328_704, "329K"),
        (1_000, "1K"),
        (999.7, "1K"),
        (999_999, "1M"),
        (250e6, "250M"),
        (1.34e6, "1.34M"),
        (2e9, "2B"),
        (512, "512"),
    ],
)
def test_counts_have_units(value, text):
    assert count(value) == text


def test_powers_of_ten():
    assert scientific(5e12) == "5×10¹²"
    assert scientific(1e-7) == "10⁻⁷"
    assert scientific(1.1e6, 3) == "1.1×10⁶"
    assert scientific(1.1e6, 3, trim=False) == "1.10×10⁶"
    assert exponent(1.6e13) == "1.6e13"
    assert exponent(9.999e12) == "1e13"
    assert significant(3.0) == "3.00"


def test_ticks_stay_inside_and_few():
    assert log_ticks(8e4, 3e6) == [1e5, 2e5, 5e5, 1e6, 2e6]
    wide = log_ticks(1e3, 1e12)
    assert len(wide) <= 10
    assert all(1e3 <= tick <= 1e12 for tick in wide)


def test_control_characters_are_spelt_out():
    assert visible("red \x1b[31m\n") == "red \\x1b[31m\\n"
    assert visible("a\u202eb") == "a\\u202eb"
    assert visible("a\nb", keep=" \n") == "a\nb"
    assert visible("MoD 12.5%, zufällig") == "MoD 12.5%, zufällig"
