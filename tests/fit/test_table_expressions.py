"""Arithmetic on columns is computed as it is written, and nothing else is done."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import run_table
from isoflop.fit.tables.expressions import LONGEST, evaluate

ROWS = pd.DataFrame(
    {
        "a": [2.0, 3.0],
        "b": [5.0, 7.0],
        "eval/loss": [11.0, 13.0],
        "a*b": [17.0, 19.0],
        "Model size": [23.0, 29.0],
        "log": [31.0, 37.0],
        "ab": [41.0, 43.0],
        "Größe": [47.0, 53.0],
    }
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + a * b", [12, 23]),
        ("(2+a)*b", [20, 35]),
        ("b-a-1", [2, 3]),
        ("b/a/2", [1.25, 7 / 6]),
        ("-a^2", [-4, -9]),
        ("2^a^2", [16, 512]),
        ("2**a**2", [16, 512]),
        ("a*-b", [-10, -21]),
        ("a^-1", [0.5, 1 / 3]),
        ("1.5e3*a", [3000, 4500]),
        (".5*a", [1, 1.5]),
        ("log(exp(a))", [2, 3]),
        ("ln(a)", np.log([2, 3])),
        ("log2(a)", np.log2([2, 3])),
        ("log10(1e3)*a", [6, 9]),
        ("sqrt(a*a)", [2, 3]),
        ("log*2", [62, 74]),
        ("ab", [41, 43]),
        # A column that is called like arithmetic is that column; quotes tell otherwise.
        ("eval/loss*2", [22, 26]),
        ("a*b", [17, 19]),
        ("`a`*`b`", [10, 21]),
        ("Model size/2", [11.5, 14.5]),
        ('"Model size"/2', [11.5, 14.5]),
        ("Größe+1", [48, 54]),
    ],
)
def test_it_is_computed_as_written(text: str, expected: list[float]) -> None:
    np.testing.assert_allclose(evaluate(text, ROWS)[0], expected, rtol=1e-14)


NONE = (
    *("a*", "(a", "a)", "a b", "`a", "2a", "sin(a)", "[a]", "a.__class__", "a#b", "True*a"),
    *("__import__('os').system('true')", "a if a else b", "(" * 240 + "a" + ")" * 240),
    "9" * 400 + "*a",
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        *((text, "is no arithmetic; expected columns, numbers") for text in NONE),
        ("a*c", "there is no column 'c'"),
        ("`c`", "there is no column 'c'"),
        ("abc", "there is no column 'abc'"),
        ("a+" * LONGEST + "a", f"expected up to {LONGEST}"),
    ],
)
def test_anything_else_is_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        evaluate(text, ROWS)
    assert "\n" not in str(error.value)


def test_tables_take_arithmetic_and_leave_out_what_is_no_number() -> None:
    rows = pd.DataFrame(
        {
            "size": ["75M", "150M", "75M"],
            "step": [1000, 2000, 3000],
            "batch": 1e6,
            "ppl": [20.0, 15.0, "x"],
        }
    )
    runs = run_table(rows, columns={"tokens": "step*batch", "loss": "log(ppl)"})
    assert runs.table["tokens"].tolist() == [1e9, 2e9]
    np.testing.assert_allclose(runs.table["loss"], np.log([20, 15]))
    assert runs.table["parameters"].tolist() == [75e6, 150e6]
    assert "tokens = step*batch" in runs.understood
    (left,) = runs.left_out
    assert (left.reason, left.rows) == ("loss is no number that a run has", 1)
    for text, told in (("2e9", "names no column"), ("step*", r"--columns tokens='step\*' is no")):
        with pytest.raises(ValueError, match=told):
            run_table(rows, columns={"tokens": text, "loss": "log(ppl)"})
