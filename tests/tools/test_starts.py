"""When runs start to learn: the committed table is what the tool makes of the committed records."""

from __future__ import annotations

import runpy
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_what_the_records_give() -> None:
    kept = pd.read_csv(ROOT / "results" / "starts.csv").set_index("study")
    row = runpy.run_path(str(ROOT / "tools" / "starts.py"))["row"]
    for study, values in kept.iterrows():
        found = row(ROOT / "results" / str(study))
        for name, value in values.items():
            assert found[name] == (value if name == "variant" else pytest.approx(value, rel=1e-3))
