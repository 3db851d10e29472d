"""The variants in `examples` keep to the door."""

from __future__ import annotations

from pathlib import Path

import pytest

from isoflop.check import outcomes, own_checks
from isoflop.config import Choices
from isoflop.config.own import of_file

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.py"))
SLOW = ("compiled step", "width and depth")


def failing(file: Path, *, slow: bool) -> list[str]:
    part, named = of_file(file)
    checks = own_checks(Choices(**{part: named}))
    chosen = [check for check in checks if (check.name in SLOW) == slow]
    assert len(chosen) > 1
    return [str(one) for one in outcomes(chosen, "cpu", ("fp32",)) if not one.passed]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_passes_the_check(file: Path) -> None:
    assert failing(file, slow=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_compiles_and_carries_over_sizes(file: Path) -> None:
    assert failing(file, slow=True) == []
