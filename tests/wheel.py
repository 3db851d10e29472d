"""Try a wheel in an environment that has it and nothing else of ours: `make dist`.

    python tests/wheel.py ENVIRONMENT WHEEL

What is typed here is typed by somebody who ran `pip install isoflop`: no torch, no sources.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "results/mod-isoflop/figures/runs.csv"
STUDY = ROOT / "studies/mod-variants.toml"
INSIDE = (
    "isoflop/py.typed",
    "isoflop/report/templates/page.html.jinja",
    "isoflop/report/templates/watch.js",
    "isoflop/cli/starter.toml",
)
"""Files without which something would only fail later."""


def main(environment: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    missing = [name for name in INSIDE if name not in names]
    assert not missing, f"{wheel.name} lacks {missing}"
    assert not any(name.startswith("tests/") for name in names)
    folder = Path(tempfile.mkdtemp(prefix="isoflop-wheel-"))
    known = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(folder)}
    results = ["--results", str(STUDY.parents[1] / "results")]

    def typed(*words: str | Path, code: int = 0, **more: str) -> str:
        command = [str(environment / "bin" / str(words[0])), *map(str, words[1:])]
        done = subprocess.run(
            command, cwd=folder, env={**known, **more}, capture_output=True, text=True
        )
        assert done.returncode == code, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        print("ok ", *words[:3], flush=True)
        return done.stdout + done.stderr

    where = typed("python", "-c", "import isoflop; print(isoflop.__file__)")
    assert str(environment.resolve()) in where, where
    torch = "import importlib.util as u; print(u.find_spec('torch'))"
    assert typed("python", "-c", torch) == "None\n"
    assert typed("isoflop", "--version").startswith("isoflop ")
    assert "minim" in typed("isoflop", "fit", TABLE).lower()
    assert "MoD" in typed("isoflop", "predict", TABLE, "--budget", "1e15")
    assert "wrote" in typed("isoflop", "init", "study.toml")
    assert "H100" in typed("isoflop", "plan", "study.toml", "--accelerator", "h100-sxm").upper()
    typed("isoflop", "status", STUDY, *results)
    typed("isoflop", "report", STUDY, *results, "--out", folder / "out")
    assert (folder / "out/report/index.html").stat().st_size > 500_000
    assert "wrote" in typed("isoflop", "--install-completion", "bash")
    assert 'pip install "isoflop[train]"' in typed("isoflop", "check", code=2)
    assert "extra train: lacks " in typed("isoflop", "check", "--environment")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
    print("the wheel works on its own")
