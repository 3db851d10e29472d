"""Numbers as people write them."""

import math

import pandas as pd
import pytest

from isoflop.fit.tables.numbers import numbers, table_marks, unit

WRITTEN = {
    3.0966: "3.0966|3,0966",
    -1.5: "-1.5|−1.5",
    2e9: " 2e9 ",
    75e6: "75M|75m|75 million|~75M",
    132_100_000.0: "132.1M",
    1.4e9: "1.4B|1,4B|1.4bn",
    350e3: "350K",
    2e12: "2T|2 T tokens",
    70e6: "70M params",
    6e18: "6.0e18 FLOPs|6.0E+18|6×10^18|6 x 10**18|6·10¹⁸ FLOP|C = 6e18|6 EFLOPs",
    1e18: "10^18",
    3.721: "3.721 ± 0.002|3.721+/-2e-3|3.721 (0.002)|3.721(2)",
    0.5e15 * 86400: "0.5 PFLOP/s-days|0.5 PF-days",
    1e6: "1,000,000|1.000.000|1 000 000|1\u202f000\u00a0000|1_000_000|1'000'000",
    1234.5: "1,234.5|1.234,5",
    12345.0: "12,345",
    12.345: "12.345",
    0.345: "0,345",
    math.inf: "inf",
}
NONE = (
    "|-|n/a|nan|diverged|12%|1,23,4|1.2.3|3 4|150 TFLOP/s|2024-01-01|12:30|0x10|75Q"
    f"|1e5e5|True|1.5e|{'9' * 2000}"
)


@pytest.mark.parametrize(
    ("text", "value"),
    [(one, value) for value, texts in WRITTEN.items() for one in texts.split("|")],
)
def test_a_number_alone(text: str, value: float) -> None:
    assert numbers(pd.Series([text], dtype=object)).tolist() == [value]


@pytest.mark.parametrize("text", NONE.split("|"))
def test_what_is_no_number(text: str) -> None:
    assert numbers(pd.Series([text], dtype=object)).isna().all()


def test_true_is_no_number_and_neither_is_a_list() -> None:
    assert numbers(pd.Series([True, [1.0], {}, None, 10**400], dtype=object)).isna().all()
    assert numbers(pd.Series([True, False])).isna().all()


@pytest.mark.parametrize(
    ("texts", "marks", "values"),
    [
        # Another value of the column tells what its marks are.
        ("1,234|1,5", "", [1.234, 1.5]),
        ("1,234|1,234,567", "", [1234.0, 1234567.0]),
        ("1.234|1.234.567", "", [1234.0, 1234567.0]),
        ("1.234|1.5", "", [1.234, 1.5]),
        ("1,234|2,345.5", "", [1234.0, 2345.5]),
        # Else the rest of the table does.
        ("52.404|83.847", ",", [52404.0, 83847.0]),
        ("52.404|83.847", ".", [52.404, 83.847]),
        ("1,198M", ",", [1.198e6]),
        ("1,198M", ".", [1198e6]),
    ],
)
def test_marks_are_read_as_elsewhere(texts: str, marks: str, values: list[float]) -> None:
    column = pd.Series(texts.split("|"), dtype=object)
    assert numbers(column, frozenset(marks)).tolist() == values


def test_the_rest_of_a_table_tells_its_marks_and_a_loss_reaches_no_thousand() -> None:
    german = pd.DataFrame({"size": ["52.404", "83.847"], "loss": ["3,0966", "3,01"]}, dtype=object)
    assert table_marks(german) == {","}
    losses = pd.Series(["3,096", "3,016"], dtype=object)
    assert numbers(losses, frozenset("."), small=True).tolist() == [3.096, 3.016]


@pytest.mark.parametrize("text", ["TFLOP/s", "%", "loss", "", "x" * 1000, "GPU hours"])
def test_rates_and_shares_are_no_units_of_a_run(text: str) -> None:
    assert unit(text) is None
