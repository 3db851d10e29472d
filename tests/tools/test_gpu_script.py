"""The script for machines with a GPU, as far as a CPU can run it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tools" / "gpu" / "measure.py"


def measured(out: Path, *parts: str) -> dict[str, Any]:
    command = [sys.executable, SCRIPT, out, "--device", "cpu", "--tiny", "--only", *parts]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ}, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "table.txt").read_text() in done.stdout
    return {part: json.loads((out / f"{part}.json").read_text()) for part in parts}


@pytest.mark.slow
def test_parts_write_what_they_measured(tmp_path: Path) -> None:
    found = measured(tmp_path, "attention", "memory")
    assert [row["length"] for row in found["attention"]["rows"]] == [128, 256]
    assert all(row["times_as_fast"] > 0 for row in found["attention"]["rows"])
    assert found["memory"]["finite"]
    assert found["memory"]["estimated_bytes"] > 1e6


@pytest.mark.slow
def test_all_parts(tmp_path: Path) -> None:
    parts = ("check", "train", "attention", "generation", "run", "memory")
    found = measured(tmp_path, *parts)
    assert found["check"]["failed"] == []
    assert {row["variant"] for row in found["train"]["rows"]} == {"dense", "MoD 12.5%"}
    assert all(row["tokens_per_second"] > 0 for row in found["generation"]["rows"])
    losses = found["run"]["losses"]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_a_part_that_fails_leaves_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    script = runpy.run_path(str(SCRIPT))

    def broken(*_: object) -> dict[str, Any]:
        raise RuntimeError("CUDA error: no kernel image")

    script["PARTS"]["train"] = broken
    given = [str(tmp_path), "--device", "cpu", "--tiny", "--only", "train", "memory"]
    assert script["main"](given) == 1
    assert json.loads((tmp_path / "train.json").read_text())["error"].endswith("no kernel image")
    assert (tmp_path / "memory.json").exists()
    assert "train: 0 s, FAILED" in capsys.readouterr().out


def test_goals_are_told_with_their_ratio() -> None:
    script = runpy.run_path(str(SCRIPT.with_name("goals.py")))
    rows = [
        {
            "variant": name,
            "parameters": 3.02e8,
            "share_of_best_product": 0.5,
            "tokens_per_second": speed,
            "forward_flops_per_token": flops,
        }
        for name, speed, flops in (("dense", 100.0, 2.0), ("MoD 12.5%", 190.0, 1.0))
    ]
    found = {"train": {"rows": rows}, "memory": {"estimated_bytes": 11, "peak_bytes": 10}}
    goals = {what: measured for what, _, measured in script["goals"](found)}
    assert goals["dense step at 300M, share of the best product"] == 0.5
    assert goals["MoD step at 300M, share of the inverse FLOP ratio"] == pytest.approx(0.95)
    assert goals["memory of a 3B step, 1 less the estimate's error"] == pytest.approx(0.9)
    assert goals["block attention over full at 16,384"] is None
    assert "0.5   1.11" in script["table"](found)
