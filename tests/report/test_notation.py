from __future__ import annotations

import pytest

from isoflop.notation import count, exponent, scientific, significant
from isoflop.report.theme import log_ticks
from isoflop.text import visible


@pytest.mark.parametrize(
    ("written", "text"),
    [
        *((count(328_704), "329K"), (count(1_000), "1K"), (count(999.7), "1K")),
        *((count(999_999), "1M"), (count(250e6), "250M"), (count(1.34e6), "1.34M")),
        *((count(2e9), "2B"), (count(512), "512"), (significant(3.0), "3.00")),
        *((scientific(5e12), "5×10¹²"), (scientific(1e-7), "10⁻⁷")),
        *((scientific(1.1e6, 3), "1.1×10⁶"), (scientific(1.1e6, 3, trim=False), "1.10×10⁶")),
        *((exponent(1.6e13), "1.6e13"), (exponent(9.999e12), "1e13")),
        *((visible("red \x1b[31m\n"), "red \\x1b[31m\\n"), (visible("a\u202eb"), "a\\u202eb")),
        (visible("a\nb", keep=" \n"), "a\nb"),
        (visible("MoD 12.5%, zufällig"), "MoD 12.5%, zufällig"),
    ],
)
def test_numbers_have_units_and_control_characters_are_spelt_out(written, text):
    assert written == text


def test_ticks_stay_inside_and_few():
    assert log_ticks(8e4, 3e6) == [1e5, 2e5, 5e5, 1e6, 2e6]
    wide = log_ticks(1e3, 1e12)
    assert len(wide) <= 10
    assert all(1e3 <= tick <= 1e12 for tick in wide)
