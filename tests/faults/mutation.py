"""Tests of the tests: each guard of the code is removed in turn, and its test must fail.

    python tests/faults/mutation.py [--write] [--only WORDS]

Guards are listed in `guards/*.toml`: what of the sources to replace by what, and by which test that
is noticed. With `--write` the table goes into docs/reliability.md as well.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "src" / "isoflop"
LISTS = Path(__file__).with_name("guards")
DOCUMENT = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- guards: written by `make guards` -->", "<!-- end of guards -->"

Outcome = Literal["passed", "failed", "broken"]
"""Of a test: `broken` where it could not run, so that it says nothing."""

BROKEN = re.compile(r"(ImportError|ModuleNotFoundError|SyntaxError|IndentationError|NameError)\b")
"""Errors of a removal that left no working code behind, rather than code without its guard."""


@dataclass(frozen=True)
class Guard:
    """A line of defence, and the test that notices when it is gone."""

    name: str
    """What it ensures."""
    row: int
    """Of the table of faults."""
    file: str
    """Below src/isoflop."""
    old: str
    """Its text, which is there exactly once."""
    new: str
    """What stands there without it."""
    test: str
    """Node of pytest, from the root of the repository."""

    def removed(self, source: str) -> str:
        """Return the file's text without the guard.

        Raises:
            ValueError: its text is not there exactly once, or what is left is no Python.
        """
        count = source.count(self.old)
        if count != 1 or self.old == self.new:
            raise ValueError(
                f"guard {self.name!r}: its `old` is in {self.file} {count} times; expected once, "
                "and another `new`"
            )
        without = source.replace(self.old, self.new)
        try:
            compile(without, self.file, "exec")
        except SyntaxError as error:
            raise ValueError(f"guard {self.name!r}: what is left is no Python: {error}") from None
        return without


def guards(folder: Path = LISTS) -> list[Guard]:
    """Return all guards that are listed, by row."""
    expected = {field.name for field in fields(Guard)}
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text())["guard"]:
            if set(entry) != expected:
                raise ValueError(
                    f"{path.name}: a guard has {sorted(entry)}, not {sorted(expected)}"
                )
            found.append(Guard(**entry))
    return sorted(found, key=lambda guard: guard.row)


def outcome(tests: Sequence[str], sources: Path) -> Outcome:
    """Run tests on the package in the folder `sources` and return how they ended."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        process = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("-m", "slow or not slow", f"--junitxml={report}", *dict.fromkeys(tests)),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(sources), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            return "broken"
        return judged(process.returncode, ET.parse(report).getroot())


def judged(code: int, report: ET.Element) -> Outcome:
    """Return what an exit code of pytest and its report in JUnit's form amount to."""
    cases = list(report.iter("testcase"))
    failures = [failure.get("message", "") for failure in report.iter("failure")]
    if code == 0 and cases and not list(report.iter("skipped")):
        return "passed"
    sound = not list(report.iter("error")) and not any(map(BROKEN.match, failures))
    return "failed" if code == 1 and failures and sound else "broken"


def without(guard: Guard, folder: Path) -> Path:
    """Copy the package into a folder, the guard removed, and return the folder."""
    copy = folder / SOURCES.name
    shutil.copytree(SOURCES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    path = copy / guard.file
    path.write_text(guard.removed(path.read_text()))
    return folder


def noticed(guard: Guard) -> Outcome:
    """Return how the guard's test ends without it."""
    with tempfile.TemporaryDirectory() as folder:
        return outcome([guard.test], without(guard, Path(folder)))


def table(results: Sequence[tuple[Guard, Outcome]]) -> str:
    """Return a Markdown table of guards and of the tests that failed without them."""
    lines = ["| Row | Guard removed | In | Test | Without it |", "|--:|---|---|---|---|"]
    for guard, ended in results:
        test = guard.test.rpartition("/")[2].replace("::", " ")
        cells = (str(guard.row), guard.name, f"`{guard.file}`", f"`{test}`", ended)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines)


def inserted(document: str, made: str) -> str:
    """Return the document with the table between its two markers.

    Raises:
        ValueError: a marker is missing.
    """
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document lacks the lines {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"


def main() -> int:
    """Remove each guard in turn and tell which tests notice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into the document")
    parser.add_argument("--only", default="", help="guards whose name or list holds these words")
    options = parser.parse_args()
    chosen = [one for one in guards() if options.only in f"{one.name} {one.file} {one.test}"]
    if not chosen:
        parser.error(f"no guard has {options.only!r} in its name, file or test")
    if options.write and len(chosen) < len(guards()):
        parser.error("the table is of all guards; leave --only out")
    if options.write:
        inserted(DOCUMENT.read_text(), "")  # refused before minutes of work, not after
    if outcome([one.test for one in chosen], SOURCES.parent) != "passed":
        print("the tests do not pass with every guard in place", file=sys.stderr)
        return 1
    results = []
    for number, guard in enumerate(chosen, start=1):
        results.append((guard, noticed(guard)))
        print(f"{number}/{len(chosen)} {results[-1][1]}: {guard.name}", file=sys.stderr)
    print(table(results))
    if options.write:
        DOCUMENT.write_text(inserted(DOCUMENT.read_text(), table(results)))
    return 0 if all(ended == "failed" for _, ended in results) else 1


if __name__ == "__main__":
    sys.exit(main())
