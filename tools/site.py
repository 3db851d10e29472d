"""What MkDocs does beside its own when `make site` builds the documentation; see mkdocs.yml.

Adds the pages that are made from the sources, the reference of what can be imported and the figures
of `results/`, and names files of the repository, which a site lacks, in place of linking to them.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from isoflop import _HOMES

ROOT = Path(__file__).resolve().parents[1]
SHOWN = "loss-against-parameters", "gaps-by-position", "loss-against-compute-6nd"
"""Figures of a study that the page of figures has, where it has them."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add pages and pictures."""
    files.append(File.generated(config, "api.md", content=reference()))
    lines = ["# Figures", "", "Of the studies in `results/`, each with its records."]
    for picture in sorted((ROOT / "results").glob("*/figures/*.svg")):
        if picture.stem in SHOWN:
            study = picture.parents[1].name
            path = f"pictures/{study}-{picture.stem}.svg"
            files.append(File.generated(config, path, abs_src_path=str(picture)))
            lines += ["", f"## {study}: {picture.stem.replace('-', ' ')}", "", f"![]({path})"]
    files.append(File.generated(config, "figures.md", content="\n".join(lines)))
    lines = ["# Why it is made this way", ""]
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    files.append(File.generated(config, "decisions/index.md", content="\n".join(lines)))
    return files


def reference() -> str:
    """Return a page of every public name, by the module that it lies in."""
    lines = ["# What can be imported", "", "Every name of `isoflop`, from its docstring."]
    for home, names in _HOMES.items():
        lines += ["", f"## {home}"]
        lines += [line for name in names.split() for line in ("", f"::: {home}.{name}")]
    return "\n".join(lines)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Name what is no page of the site: files of the repository, and folders."""

    def named(found: re.Match[str]) -> str:
        picture, text, target, _ = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target))
        if files.get_file_from_path(path) is not None:
            return found[0]
        if files.get_file_from_path(f"{path}/index.md") is not None:
            return f"[{text}]({target.rstrip('/')}/index.md)"
        path = posixpath.normpath(posixpath.join("docs", path))
        assert (ROOT / path).exists(), f"{page.file.src_uri} links to {path}, which is not there"
        plain = text.strip("`")
        return f"`{path}`" if picture or path.endswith(plain.strip("/")) else f"{text} (`{path}`)"

    fences = re.split(r"(?ms)(^```.*?^```)", markdown)
    return "".join(one if one.startswith("```") else LINK.sub(named, one) for one in fences)
