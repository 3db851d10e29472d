"""What a run left, without what a clock measured, to hold two of them against each other."""

from __future__ import annotations

from typing import Any

import torch

from isoflop import checkpoint
from isoflop.checkpoint import newest_step
from isoflop.config import RunRecord
from isoflop.runs import RunFolder, RunStore

UNEQUAL = ("seconds", "attempts")
"""Fields of a record that a disturbed run may have otherwise; every other one is equal."""


def timeless(record: RunRecord | None) -> dict[str, Any]:
    """Return a record without the fields that may differ."""
    assert record is not None
    return record.model_dump(mode="json", exclude=set(UNEQUAL))


def assert_same_run(found: RunFolder, expected: RunFolder) -> None:
    """Check that weights and optimiser are bitwise equal, and metrics and records equal."""
    saved, right = checkpoint.latest(found.checkpoints), checkpoint.latest(expected.checkpoints)
    assert saved is not None
    assert right is not None
    assert saved.step == right.step
    assert saved.tensors.keys() == right.tensors.keys()
    for name, tensor in right.tensors.items():
        assert torch.equal(saved.tensors[name], tensor), name
    assert _rows(found) == _rows(expected)
    assert timeless(found.record()) == timeless(expected.record())


def assert_whole(store: RunStore) -> None:
    """Check that every run of a study has its rows up to its end, or to its newest checkpoint."""
    for folder in store.folders():
        assert "Traceback" not in (folder.path / "log.txt").read_text()
        rows, corrupt = folder.read_metrics()
        last = folder.config().steps if folder.record() else newest_step(folder.checkpoints)
        assert ([row["step"] for row in rows], corrupt) == (list(range(1, last + 1)), 0)


def _rows(folder: RunFolder) -> list[dict[str, Any]]:
    rows, corrupt = folder.read_metrics()
    assert corrupt == 0
    assert [row["step"] for row in rows] == list(range(1, folder.config().steps + 1))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
