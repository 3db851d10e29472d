"""`make setup` finds a Python that is new enough, and says so where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")

ABSENT = "echo 'pyenv: not installed' >&2; exit 127"
"""What a shim says whose Python is not installed."""


def python(version: tuple[int, int]) -> str:
    """A Python of a version: it runs code, and makes an environment that only notes who made it."""
    return f"""
if [ "$1" = -c ]; then
  exec {sys.executable} -c "import sys; sys.version_info = {version}; exec(sys.argv[1])" "$2"
fi
mkdir -p "$3/bin" && echo "$(basename "$0")" > "$3/maker"
printf '#!/bin/sh\\n' > "$3/bin/python" && chmod +x "$3/bin/python"
"""


@pytest.fixture
def made(tmp_path: Path):
    """Return what made the environment with some commands at hand, or the last line of make."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(MAKEFILE.parent / name, tmp_path)

    def make(commands: dict[str, str], *arguments: str) -> str:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in ("sh", "mkdir", "touch", "test", "chmod", "basename"):
            (folder / name).symlink_to(shutil.which(name) or "")
        for name, script in commands.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        said = subprocess.run(
            [shutil.which("make") or "make", "setup", *arguments],
            cwd=tmp_path,
            env={"PATH": str(folder)},
            capture_output=True,
            text=True,
        )
        maker = tmp_path / ".venv" / "maker"
        if said.returncode:
            assert not maker.exists()
            return next(line for line in said.stderr.splitlines() if line.startswith("make: none"))
        return maker.read_text().strip()

    return make


@pytest.mark.parametrize(
    ("commands", "expected"),
    [
        ({"python3.11": python((3, 11)), "python3.12": python((3, 12))}, "python3.11"),
        ({"python3.12": python((3, 12)), "python3": python((3, 9))}, "python3.12"),
        ({"python3.11": ABSENT, "python3.12": ABSENT, "python3.13": python((3, 13))}, "python3.13"),
        ({"python3.12": ABSENT, "python3": python((3, 14))}, "python3"),
    ],
)
def test_the_first_that_runs_and_is_new_enough_is_taken(made, commands, expected: str) -> None:
    assert made(commands) == expected


def test_another_one_may_be_named(made) -> None:
    commands = {"python3.11": python((3, 11)), "mine": python((3, 13))}
    assert made(commands, "PYTHON=mine") == "mine"


@pytest.mark.parametrize(
    ("commands", "arguments", "expected"),
    [
        (
            {"python3.11": ABSENT, "python3": python((3, 10))},
            [],
            "make: none of python3.11 python3.12 python3.13 python3 is Python 3.11 or newer; name "
            "one with make PYTHON=/path/to/python",
        ),
        (
            {"python3.11": python((3, 11)), "mine": python((3, 8))},
            ["PYTHON=mine"],
            "make: none of mine is Python 3.11 or newer; name one with make PYTHON=/path/to/python",
        ),
    ],
)
def test_where_there_is_none_it_says_so(made, commands, arguments, expected: str) -> None:
    assert made(commands, *arguments) == expected
