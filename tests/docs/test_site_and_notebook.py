"""The documentation as a site, and the executed notebook, without a word of this machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def maker():
    loader = SourceFileLoader("notebook", str(ROOT / "tools" / "notebook"))
    module = module_from_spec(spec_from_loader("notebook", loader))
    loader.exec_module(module)
    return module


def cells(path: Path) -> list[tuple[str, str]]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(one["cell_type"], "".join(one["source"])) for one in found]


def test_the_notebook_is_what_its_script_makes_and_was_executed(maker) -> None:
    assert cells(NOTEBOOK) == list(maker.CELLS)
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(home|root|tmp|work|Users)/|\"error\"", text)
    outputs = [one["outputs"] for one in json.loads(text)["cells"] if one["cell_type"] == "code"]
    assert all(outputs)
    assert any("image/svg+xml" in one.get("data", {}) for found in outputs for one in found)


@pytest.mark.skipif(find_spec("nbclient") is None, reason="needs nbclient: make test-extras")
def test_the_notebook_can_be_executed(maker, tmp_path: Path) -> None:
    maker.main(tmp_path / "made.ipynb")
    assert cells(tmp_path / "made.ipynb") == cells(NOTEBOOK)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs mkdocs: make test-extras")
def test_the_site_is_built_without_a_warning_and_asks_for_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    known = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=known, check=True, capture_output=True)
    pages = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.html")}
    assert {"index.html", "api.html", "figures.html", "how-do-i.html"} <= set(pages)
    assert "Forward FLOPs" in pages["api.html"]
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//[^\"]*", text)
        loaded += re.findall(r"<link[^>]*rel=\"(?!canonical)[^>]*href=\"(?:https?:)?//[^\"]*", text)
        assert not loaded, name
    styles = "".join(path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.css"))
    assert not re.search(r"url\([\"']?(https?:)?//", styles)
