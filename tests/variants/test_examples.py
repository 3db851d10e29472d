"""The variants in `examples` keep to the door."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.check import outcomes, own_checks
from isoflop.config import Choices
from isoflop.config.own import of_file

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SLOW = ("compiled step", "width and depth")


@pytest.mark.parametrize("slow", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_passes_the_check(file: Path, slow: bool) -> None:
    part, named = of_file(file)
    checks = own_checks(Choices(**{part: named}))
    chosen = [check for check in checks if (check.name in SLOW) == slow]
    assert len(chosen) > 1
    found = outcomes(chosen, "cpu", ("fp32",))
    assert [str(one) for one in found if not one.passed] == []
