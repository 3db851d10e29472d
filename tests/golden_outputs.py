"""What the commands say of every study and every case: collected, kept and compared.

Text is kept as it is printed, JSON and tables as numbers. Where a change of what is said is meant,
write it anew, read `git diff tests/golden/outputs`, and say so in the commit:

    PYTHONPATH=tests python -m golden_outputs [SUBJECT ...]
"""

from __future__ import annotations

import contextlib
import csv
import difflib
import html
import io
import json
import lzma
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from isoflop.cli import main

TESTS = Path(__file__).parent
ROOT = TESTS.parent
OUTPUTS = TESTS / "golden" / "outputs"
STUDIES = sorted(path.stem for path in (ROOT / "studies").glob("*.toml"))
STUDIED = sorted(path.parent.name for path in (ROOT / "results").glob("*/records.jsonl.gz"))
CASES = sorted(path.name for path in (TESTS / "cases").iterdir() if path.suffix != ".md")
SUBJECTS = (*STUDIES, *CASES)

TOLERANCE = 1e-9
"""Of numbers in JSON and tables, relative: what another order of summation moves."""
PREDICTED = {"mod-isoflop": "1e14"}
"""Budgets to predict, where a study has enough of them."""
AS_TYPED = {
    "as-people-type.csv": ["--equal-exponents"],
    "learning-rate-sweep.csv": ["--best-of", "peak_lr"],
    "steps-times-batch.csv": ["--columns", "tokens=step*batch_tokens", "--last-of", "step"],
    "token-multiplier-grid.csv": ["--columns", "variant=dataset"],
    "units-millions.csv": ["--columns", "parameters=params*1e6", "tokens=tokens*1e9"],
}
"""What a user adds to the command for a case; without it, too, each is asked."""


@dataclass
class Outputs:
    """What the commands said of one study or case."""

    texts: dict[str, str] = field(default_factory=dict)
    """By command: exit code, standard output and standard error; and the text of the page."""
    values: dict[str, Any] = field(default_factory=dict)
    """By command or file: parsed JSON, and tables as lists of rows."""

    def write(self, folder: Path) -> None:
        """Write both, the values compressed."""
        folder.mkdir(parents=True, exist_ok=True)
        blocks = [f"$ {name}\n{text}" for name, text in self.texts.items()]
        (folder / "said.txt").write_text("\n".join(blocks))
        packed = json.dumps(self.values, sort_keys=True, separators=(",", ":")).encode()
        (folder / "values.json.xz").write_bytes(lzma.compress(packed, preset=9))

    @classmethod
    def read(cls, folder: Path) -> Outputs:
        """Return what was kept."""
        blocks = ("\n" + (folder / "said.txt").read_text()).split("\n$ ")[1:]
        texts = dict(block.split("\n", 1) for block in blocks)
        return cls(texts, json.loads(lzma.decompress((folder / "values.json.xz").read_bytes())))


def collect(subject: str) -> Outputs:
    """Ask every command about a study or a case, in a fresh folder that has studies and results."""
    # How long a corpus takes is told only where it takes long.
    quiet = patch("isoflop.data.preparation.SECONDS_BETWEEN", math.inf)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), quiet:
        for name in ("studies", "results"):
            Path(name).symlink_to(ROOT / name)
        Path("cases").symlink_to(TESTS / "cases")
        found = Outputs()
        for command in _commands(subject):
            _ask(command, found)
        report = Path("runs") / subject / "report"
        for path in sorted((report / "figures").glob("*.csv")):
            with path.open(newline="") as file:
                found.values[f"figures/{path.name}"] = list(csv.reader(file))
        if (report / "index.html").exists():
            found.texts["page"] = page_text((report / "index.html").read_text())
    return found


def _commands(subject: str) -> Iterator[list[str]]:
    """Yield the command lines for a subject, each of which `--json` may follow."""
    few = ["--resamples", "100"]
    if subject in CASES:
        path = f"cases/{subject}"
        for options in ([], AS_TYPED[subject]) if subject in AS_TYPED else ([],):
            yield ["fit", path, *options, *few]
            yield ["fit", path, *options, *few, "--details"]
            yield ["predict", path, *options, *few, "--budget", "1e22"]
        return
    path = f"studies/{subject}.toml"
    yield ["costs", path]
    yield ["plan", path, "--accelerator", "h100-sxm"]
    # Run ids of one that never ran are of the precision that is measured where it is asked.
    if not subject.endswith("-paper"):
        yield ["status", path]
    if subject in STUDIED:
        yield ["fit", path, *few]
        yield ["fit", path, *few, "--details"]
        yield ["predict", path, *few, "--budget", PREDICTED.get(subject, "1e15")]
        yield ["report", path]


def _ask(command: Sequence[str], found: Outputs) -> None:
    code, out, err = _said(command)
    found.texts[" ".join(command)] = f"exit code {code}\n{out}{err}"
    if code == 0 and command[0] != "report" and "--details" not in command:
        _, out, _ = _said([*command, "--json"])
        found.values[" ".join(command)] = json.loads(out)


def _said(command: Sequence[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(command))
    return code, out.getvalue(), err.getvalue()


def page_text(page: str) -> str:
    """Return what a reader of a page reads: cells apart, a line each for rows and paragraphs."""
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page, flags=re.S)
    page = re.sub(r"</t[dh]>", "\t", page)
    page = re.sub(
        r"<(/p|/li|/h\d|/tr|/caption|/figcaption|/dt|/dd|/summary|br)\b[^>]*>", "\n", page
    )
    page = html.unescape(re.sub(r"<[^>]+>", "", page))
    lines = (re.sub(r"[ \xa0]+", " ", line).strip() for line in page.splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def differences(kept: Outputs, found: Outputs) -> Iterator[str]:
    """Yield each difference in one line: texts exact, numbers within TOLERANCE."""
    for name in {**kept.texts, **found.texts}:
        before, now = (one.texts.get(name, "").splitlines() for one in (kept, found))
        if before != now:
            changed = list(difflib.unified_diff(before, now, n=0, lineterm=""))[3:]
            gone = [line[1:] for line in changed if line.startswith("-")][:3]
            come = [line[1:] for line in changed if line.startswith("+")][:3]
            yield f"{name}: {gone} became {come}"
    yield from _unlike(kept.values, found.values, "")


def _unlike(before: Any, now: Any, where: str) -> Iterator[str]:
    match before, now:
        case dict(), dict():
            for key in {**before, **now}:
                if key not in before or key not in now:
                    yield f"{where}/{key} is {'new' if key in now else 'gone'}"
                else:
                    yield from _unlike(before[key], now[key], f"{where}/{key}")
        case list(), list() if len(before) == len(now):
            for index, (one, other) in enumerate(zip(before, now, strict=True)):
                yield from _unlike(one, other, f"{where}[{index}]")
        case _ if before != now and not _near(before, now):
            yield f"{where}: {before!r} became {now!r}"


def _near(before: Any, now: Any) -> bool:
    """Return whether two values, or two cells of a table, are numbers as good as equal."""
    if isinstance(before, bool) or isinstance(now, bool):
        return False
    try:
        return math.isclose(float(before), float(now), rel_tol=TOLERANCE, abs_tol=1e-12)
    except (TypeError, ValueError):
        return False


def pins() -> dict[str, str]:
    """Return what has sums come out alike on processors with AVX512 and without: none is used.

    The ends of ill-conditioned surfaces move by 1e-8 with the order of additions.
    """
    from numpy._core import _multiarray_umath as core

    found = [
        name
        for name in core.__cpu_dispatch__
        if core.__cpu_features__.get(name) and ("AVX512" in name or name == "X86_V4")
    ]
    wide = {"NPY_DISABLE_CPU_FEATURES": ",".join(found)} if found else {}
    return {"OPENBLAS_CORETYPE": "Haswell", "OMP_NUM_THREADS": "1", **wide}


if __name__ == "__main__":
    wanted = pins()
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})
    compared = sys.argv[1:2] == ["--compare"]
    for one in sys.argv[1 + compared :] or SUBJECTS:
        if compared:
            print(*differences(Outputs.read(OUTPUTS / one), collect(one)), sep="\n", end="")
        else:
            collect(one).write(OUTPUTS / one)
            print(one, flush=True)
