from __future__ import annotations

import pytest

from isoflop.notation import count, exponent, scientific, significant, written
from isoflop.report.theme import legend_columns, log_ticks
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
        *((written(-0.00003, "+.4f"), "-3e-05"), (written(-0.0, "+.4f"), "+0.0000")),
        *((written(0.02, ".1f"), "0.02"), (written(3, "d"), "3"), (written(2, count), "2")),
        *((visible("red \x1b[31m\n"), "red \\x1b[31m\\n"), (visible("a\u202eb"), "a\\u202eb")),
        (visible("a\nb", keep=" \n"), "a\nb"),
        (visible("MoD 12.5%, zufällig"), "MoD 12.5%, zufällig"),
    ],
)
def test_numbers_have_units_and_control_characters_are_spelt_out(written, text):
    assert written == text


def test_a_legend_of_long_names_has_fewer_columns():
    assert [legend_columns(4, n).expr[-5:] for n in (15, 25, 80)] == ["2 : 4", "1 : 3", "1 : 2"]


def test_ticks_stay_inside_and_few():
    assert log_ticks(8e4, 3e6) == [1e5, 2e5, 5e5, 1e6, 2e6]
    wide = log_ticks(1e3, 1e12)
    assert len(wide) <= 10
    assert all(1e3 <= tick <= 1e12 for tick in wide)
    # One size alone, between two of 1-2-5.
    assert log_ticks(2.56e6, 4e6, 4) == [3e6, 3.5e6, 4e6]
    assert log_ticks(2.1e-4, 4.7e-4) == pytest.approx([3e-4, 4e-4])
