"""Arithmetic on columns, as in `step*batch_tokens`: parsed by Python's parser, never executed.

Numbers, columns, brackets, `FUNCTIONS`, minus and `OPERATORS`, with `^` for powers. A column is
written as it is, or in double quotes or backticks. Of the columns that a text may begin with the
longest is meant, so that `eval/loss*2` is twice the column `eval/loss` where there is one.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from isoflop.fit.tables.names import names_of
from isoflop.fit.tables.numbers import Marks, numbers

LONGEST = 500
"""Characters of an expression: no person writes more, and nesting stays within the parser."""
FUNCTIONS: dict[str, Callable[[pd.Series], pd.Series]] = {
    "log": np.log,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "exp": np.exp,
    "sqrt": np.sqrt,
}
OPERATORS: dict[type[ast.operator], Callable[[pd.Series, pd.Series], pd.Series]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_WORD = re.compile(r"[^\W\d]")
"""How a name begins that needs no quotes."""


def evaluate(
    text: str, rows: pd.DataFrame, marks: Marks = frozenset()
) -> tuple[pd.Series, tuple[str, ...]]:
    """Return what an expression is in every row, and the columns that it names.

    Args:
        text: the expression.
        rows: of a table, its names as text; a cell without a number is NaN.
        marks: of the table, as `numbers` takes them.

    Raises:
        ValueError: the text is no such expression; in one line.
    """
    if len(text) > LONGEST:
        raise ValueError(f"{text[:40]!r}... has {len(text)} characters; expected up to {LONGEST}")
    used: list[str] = []

    def placed(found: re.Match[str]) -> str:
        """Return what Python can parse in place of a column's name."""
        used.append(found["column"] or found["name"])
        return f" _{len(used) - 1} "

    python = _columns(rows).sub(placed, text).replace("^", "**").strip()
    try:
        values = {f"_{at}": numbers(rows[one], marks) for at, one in enumerate(used)}
        if "#" in python:
            raise SyntaxError("to Python, a comment begins here")
        tree = ast.parse(python, mode="eval")
        with np.errstate(all="ignore"):
            value = _value(tree.body, values)
    except (SyntaxError, OverflowError, MemoryError, RecursionError):
        raise ValueError(
            f"{text!r} is no arithmetic; expected columns, numbers, + - * / ^, brackets or "
            f"{', '.join(FUNCTIONS)}"
        ) from None
    except KeyError as error:
        raise ValueError(f"{text!r}: there is no column {error.args[0]!r}") from None
    return pd.Series(value, index=rows.index, dtype="float64"), tuple(dict.fromkeys(used))


def _columns(rows: pd.DataFrame) -> re.Pattern[str]:
    """Return what finds columns in an expression, as they are or in quotes."""
    names = [one for one in sorted(names_of(rows), key=len, reverse=True) if _WORD.match(one)]
    # A column that is called like a function is one unless a bracket follows.
    columns = (re.escape(one) + r"(?!\s*\()" * (one in FUNCTIONS) for one in names)
    # Nothing longer stands there: `ab` is no column `a`.
    plainly = rf"(?<!\w)(?P<column>{'|'.join(columns) or '(?!)'})(?!(?<=\w)\w)"
    return re.compile(rf"(?P<quote>[\"`])(?P<name>.*?)(?P=quote)|{plainly}")


def _value(node: ast.expr, columns: Mapping[str, pd.Series]) -> Any:
    """Return what a part of an expression is in every row.

    Raises:
        KeyError: a word names no column.
        SyntaxError: Python has it, and arithmetic does not.
    """
    match node:
        case ast.Name(id=name):
            return columns[name]
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return np.float64(number)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, columns)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in OPERATORS:
            return OPERATORS[type(sign)](_value(left, columns), _value(right, columns))
        case ast.Call(func=ast.Name(id=name), args=[inner], keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](_value(inner, columns))
    raise SyntaxError("no arithmetic")
