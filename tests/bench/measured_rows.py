"""Rows of the measurements that are kept beside the code, with what a test changes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from isoflop.config import Frozen

RESULTS = Path(__file__).parents[2] / "results" / "bench"

Row = TypeVar("Row", bound=Frozen)


def kept_row(kind: type[Row], name: str, number: int = 0, **changes: object) -> Row:
    """Return a row of a file of results."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return kind.model_validate({**rows[number], **changes})
