"""The lowest versions that pyproject.toml names, as constraints for pip: `make test-lowest`.

torch is left out: its lowest version has a target of its own, `make test-oldest`. So are the tools
of developers, whose versions are those of constraints.txt.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
NAMED = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?>=([0-9][0-9A-Za-z.]*)")


def lowest(text: str) -> dict[str, str]:
    """Return by package the lowest version that it is named with."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"].items()
    groups = [project["dependencies"], *(group for name, group in extras if name != "dev")]
    named = [one for group in groups for one in group]
    found = [NAMED.fullmatch(one) for one in named if not one.startswith("isoflop[")]
    assert all(found), named
    return {one[1]: one[2] for one in found if one and one[1] != "torch"}


if __name__ == "__main__":
    for name, version in lowest(PYPROJECT.read_text(encoding="utf-8")).items():
        print(f"{name}=={version}")
