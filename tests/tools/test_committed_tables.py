"""Committed tables are what their tools make of the committed records."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_pairs_under_two_optimisers_are_what_the_records_give() -> None:
    records = [f"results/{study}/records.jsonl.gz" for study in ("league", "league-each")]
    made = subprocess.run(
        [sys.executable, "tools/recipe/pairs.py", *records],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    assert made.stdout == (ROOT / "results" / "recipe" / "own-each.csv").read_bytes()


def test_when_runs_start_is_what_the_records_give() -> None:
    kept = pd.read_csv(ROOT / "results" / "starts.csv").set_index("study")
    row = runpy.run_path(str(ROOT / "tools" / "starts.py"))["row"]
    for study, values in kept.iterrows():
        found = row(ROOT / "results" / str(study))
        for name, value in values.items():
            assert found[name] == (value if name == "variant" else pytest.approx(value, rel=1e-3))
