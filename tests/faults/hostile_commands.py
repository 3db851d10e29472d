"""The command line in a sandbox: what it says, what it returns, and what it changes on disk."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from isoflop.cli import main
from isoflop.fit import FitSettings

STUDY: dict[str, Any] = {
    "name": "small",
    "budgets_flops": [1.5e11],
    "tokens_per_step": 1024,
    "data": {"corpus": "text.txt", "sequence_length": 64},
    "recipe": {"precision": "fp32"},
    "grid": {"sizes": 3, "margin": 1, "centre_parameters": 60e3},
    "variants": [
        {"name": "Baseline"},
        {"name": "MoD", "depth": {"kind": "top_k", "capacity": 0.5, "every": 2}},
    ],
}
_DRAW = random.Random(0)
TEXT = "\n\n".join(
    " ".join(_DRAW.choices(("peace", "war", "union", "state", "law"), k=60)) for _ in range(200)
)
NO_ERRORS = ("isoflop: warning: ", "warning: ", "small: ")
"""How lines on standard error begin that tell of no error: warnings, and progress of a study."""
TRACES = ("Traceback", "pydantic", "validation error for", "[Errno", "'NoneType'", "object is not")
"""What a message for users never holds."""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error of a command that was refused."""
        assert self.code == 2, self
        return _one_line(self)


class Sandbox:
    """A folder to work in, and others beside it that nothing may change."""

    def __init__(self, root: Path) -> None:
        self._at(root)
        self.home.mkdir(parents=True)
        self.beside.mkdir()
        (self.beside / "kept.txt").write_text("kept")
        (self.home / "text.txt").write_text(TEXT)
        self.study(STUDY)

    def _at(self, root: Path) -> None:
        self.root = root
        self.home = root / "home"
        self.beside = root / "beside"

    def copied(self, root: Path) -> Sandbox:
        """Return a copy of it in a folder, in place of what is there."""
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(self.root, root)
        copy = object.__new__(Sandbox)
        copy._at(root)
        return copy

    def study(self, values: dict[str, Any], name: str = "small.json") -> str:
        """Write a study file into the folder to work in and return its name."""
        (self.home / name).write_text(json.dumps(values))
        return name

    def __call__(self, *arguments: object) -> Said:
        """Run a command in the folder to work in, with nothing that takes seconds.

        A bug of ours, which would be a traceback, is raised.
        """
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(self.home),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
            mock.patch("isoflop.sweep.plan._measured", return_value=(None, "not measured")),
            mock.patch("isoflop.sweep.running.measured_speeds", return_value=None),
            mock.patch("isoflop.sweep.running.LocalPool.start", _no_training),
            quick_reports(),
        ):
            warnings.simplefilter("default")
            code = main(
                [os.fspath(one) if isinstance(one, Path) else str(one) for one in arguments]
            )
        return Said(code, out.getvalue(), err.getvalue())

    def refused(self, *arguments: object) -> str:
        """Run a command that must be refused, and return its line; nothing may be written."""
        before = listing(self.root)
        line = self(*arguments).line
        assert changed(before, listing(self.root)) == set()
        return line

    @contextlib.contextmanager
    def contained(self, *inside: str) -> Iterator[None]:
        """Let nothing be written but below folders of the folder to work in."""
        before = listing(self.root)
        yield
        touched = changed(before, listing(self.root))
        allowed = tuple(f"home/{one}" for one in inside)
        assert all(one.startswith(allowed) for one in touched), touched


@contextlib.contextmanager
def quick_reports() -> Iterator[None]:
    """Let reports be written without pictures, and with intervals of a few resamples."""
    with (
        mock.patch("isoflop.report.render.vl_convert", _Pictures()),
        mock.patch("isoflop.report.page.vega_javascript", return_value="/* vega */"),
        mock.patch("isoflop.report.analysis.FitSettings", partial(FitSettings, resamples=20)),
    ):
        yield


def survives(said: Said) -> None:
    """Check that a command worked, or told in one line what the user can mend."""
    assert said.code in (0, 2), said
    if said.code:
        _one_line(said)


def listing(root: Path) -> dict[str, str]:
    """Return every path below a folder with what it is and holds; links are not followed."""
    found = {}
    for parent, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                told = f"link to {os.readlink(path)}"
            elif path.is_dir():
                told = "folder"
            elif path.is_file():
                told = hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                told = "special"
            found[str(path.relative_to(root))] = told
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the paths that were added, removed or changed."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def _one_line(said: Said) -> str:
    lines = [line for line in said.err.splitlines() if not line.startswith(NO_ERRORS)]
    assert len(lines) == 1, said
    assert lines[0].startswith("isoflop: ")
    assert lines[0].isprintable()
    assert len(lines[0]) < 2000, lines[0][:3000]
    assert not any(trace in lines[0] for trace in TRACES), lines[0]
    return lines[0].removeprefix("isoflop: ")


class _Pictures:
    """In place of the renderer, which takes seconds."""

    def vegalite_to_svg(self, spec: object, **_: object) -> str:
        return f"<svg xmlns='http://www.w3.org/2000/svg'><!-- {len(json.dumps(spec))} --></svg>"

    def svg_to_png(self, svg: str, **_: object) -> bytes:
        return b"png"

    def svg_to_pdf(self, svg: str) -> bytes:
        return b"pdf"


def _no_training(*_: object, **__: object) -> None:
    raise AssertionError("training was begun")
