"""The list of guards does not rot, and at length the removal of each is noticed."""

from __future__ import annotations

import ast
from pathlib import Path

import mutation
import pytest
from mutation import ROOT, SOURCES, Guard

GUARDS = mutation.guards()


def functions_of(path: Path) -> set[str]:
    """Names of the tests in a module."""
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_guard_is_in_the_sources_once_and_its_test_exists(guard: Guard) -> None:
    guard.removed((SOURCES / guard.file).read_text())
    path, _, function = guard.test.partition("::")
    assert (ROOT / path).is_file()
    assert function.partition("[")[0] in functions_of(ROOT / path)
    assert 1 <= guard.row <= 25


def test_guards_have_names_of_their_own() -> None:
    names = [guard.name for guard in GUARDS]
    assert len(set(names)) == len(names) > 7


@pytest.mark.slow
def test_tests_pass_with_every_guard_in_place() -> None:
    assert mutation.outcome([guard.test for guard in GUARDS], SOURCES.parent) == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_removed_guard_is_noticed(guard: Guard) -> None:
    assert mutation.noticed(guard) == "failed"
