"""The list of guards does not rot, a removal is judged rightly, and at length each is noticed."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from pathlib import Path

import mutation
import pytest
from mutation import BEGIN, END, ROOT, SOURCES, Guard

GUARDS = mutation.guards()

EXAMPLE = Guard(
    name="a full disk is told | at once",
    row=4,
    file="storage.py",
    old="        _write_all(descriptor, data)\n",
    new="        pass\n",
    test="tests/storage/test_storage.py::test_short_writes_are_completed",
)


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


@pytest.mark.parametrize(
    ("guard", "source", "message"),
    [
        (EXAMPLE, "x = 1\n", "expected once"),
        (EXAMPLE, EXAMPLE.old * 2, "expected once"),
        (Guard("n", 1, "f.py", "1", "(", "t"), "x = 1\n", "no Python"),
    ],
)
def test_a_guard_that_cannot_be_removed_is_refused(guard, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        guard.removed(source)


@pytest.mark.parametrize(
    ("code", "inside", "expected"),
    [
        (0, "", "passed"),
        (0, "<skipped/>", "broken"),
        (1, '<failure message="AssertionError: assert 1 == 2"/>', "failed"),
        (1, '<failure message="StorageError: cannot write"/>', "failed"),
        (1, '<failure message="ImportError: no name"/>', "broken"),
        (1, '<failure message="NameError: name &apos;x&apos; is not defined"/>', "broken"),
        (1, '<error message="failed on setup"/>', "broken"),
        (2, '<error message="collection failure"/>', "broken"),
    ],
)
def test_what_says_nothing_is_no_failure(code: int, inside: str, expected: str) -> None:
    report = f"<testsuites><testsuite><testcase>{inside}</testcase></testsuite></testsuites>"
    assert mutation.judged(code, ET.fromstring(report)) == expected
    assert mutation.judged(code, ET.fromstring("<testsuites/>")) == "broken"


def test_the_table_goes_between_the_markers() -> None:
    made = mutation.table([(EXAMPLE, "failed")])
    cells = made.splitlines()[2].split(" | ")
    assert cells[0] == "| 4"
    assert len(cells) == made.splitlines()[0].count("|") - 1
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert mutation.inserted(document, made) == f"before\n{BEGIN}\n\n{made}\n\n{END}\nafter\n"
    with pytest.raises(ValueError, match="lacks the lines"):
        mutation.inserted("before\nafter\n", made)


def test_a_removal_is_made_in_a_copy(tmp_path: Path) -> None:
    before = (SOURCES / EXAMPLE.file).read_text()
    mutation.without(EXAMPLE, tmp_path)
    assert EXAMPLE.old not in (tmp_path / "isoflop" / EXAMPLE.file).read_text()
    assert (SOURCES / EXAMPLE.file).read_text() == before


@pytest.mark.slow
def test_tests_pass_with_every_guard_in_place() -> None:
    assert mutation.outcome([guard.test for guard in GUARDS], SOURCES.parent) == "passed"


@pytest.mark.slow
@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_removed_guard_is_noticed(guard: Guard) -> None:
    assert mutation.noticed(guard) == "failed"
