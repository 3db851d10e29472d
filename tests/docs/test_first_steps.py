"""What the page on first steps shows is typed as it stands, each section in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "first-steps.md"
FENCE = re.compile(r"(?ms)^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$")
MADE = {
    "I have a table of runs": (),
    "I have a text": ("runs/first/report/index.html",),
    "I have a model": ("model/config.json", "routed/config.json", "runs/go-on/report/index.html"),
    "I have a GPU": ("runs/first/study.json",),
    "I have many machines": ("runs/first/report/index.html",),
}
"""The files that each section's commands leave behind."""


def sections() -> dict[str, str]:
    found = re.split(r"(?m)^## (.*)$", PAGE.read_text(encoding="utf-8"))
    return dict(zip(found[1::2], found[2::2], strict=True))


def typed(section: str, folder: Path) -> None:
    """Write the files and run the commands of a section, as `bash` does, on the CPU."""
    (folder / "copy.py").write_text("1 / 0")  # no process takes it for Python's own
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    known = {**os.environ, "PATH": path, "PYTHONSAFEPATH": ""}
    for language, title, text in FENCE.findall(section):
        if title:
            (folder / title).write_text(text, encoding="utf-8")
        elif language == "bash":
            runs = sorted((folder / "runs" / "first" / "runs").glob("*"))
            text = text.replace("cuda", "cpu").replace("RUN_ID", runs[0].name if runs else "")
            made = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder,
                env=known,
                capture_output=True,
                text=True,
            )
            assert made.returncode == 0, (text, made.stdout, made.stderr)


def test_every_section_with_commands_is_typed() -> None:
    assert {name for name, text in sections().items() if "```bash" in text} == set(MADE)


@pytest.mark.parametrize(
    "name", [next(iter(MADE)), *(pytest.param(one, marks=pytest.mark.slow) for one in [*MADE][1:])]
)
def test_a_section_can_be_typed(name: str, tmp_path: Path) -> None:
    found, text = sections(), "I have a text"
    if name == "I have a model":
        typed(found[text], tmp_path)
    elif name != text:
        # The study alone, of which nothing is trained yet.
        typed(re.sub(r"(?ms)^```bash.*?^```$", "", found[text]), tmp_path)
    typed(found[name], tmp_path)
    assert all((tmp_path / one).is_file() for one in MADE[name])
