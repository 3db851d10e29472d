"""What `tools/house` counts."""

import ast
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "tools" / "house"

SOURCE = '''"""A module."""

import os  # counted nowhere

# why
def f(self, q, k, v, a=1, *, b):
    """What it does.

    In three lines.
    """
    text = """two
    lines"""
    return text, (
        a,
    )
'''


@pytest.fixture(scope="module")
def house():
    loader = SourceFileLoader("house", str(PATH))
    module = module_from_spec(spec_from_loader("house", loader))
    sys.modules["house"] = module  # dataclasses look their module up
    loader.exec_module(module)
    return module


def test_code_is_counted_without_imports_comments_and_docstrings(house):
    assert house.code_lines(SOURCE) == 6
    assert list(house.functions(ast.parse(SOURCE))) == [("f", 6, 3)]


def test_what_is_above_its_limit_is_told(house):
    assert house.Measured("lines", 10, 10).within
    above = house.Measured("lines", 11, 10, "a.py")
    assert not above.within
    assert str(above).endswith("a.py  <- above its limit")
    both = list(house.largest({"a": 5, "b": 9, "c": 8}, "lines", 6, every=True))
    assert [one.where for one in both] == ["b", "c"]
