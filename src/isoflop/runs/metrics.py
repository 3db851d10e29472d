"""Metrics of a run: one JSON line per training step, exactly one, however often it is resumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoflop.storage import JSON, JsonLines, read_json_lines, scan_json_lines


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever watches."""

    step: int
    steps: int
    loss: float
    tokens_per_second: float


def _step_of(row: Mapping[str, Any] | None) -> int | None:
    step = None if row is None else row.get("step")
    return step if isinstance(step, int) and not isinstance(step, bool) else None


def read_metrics(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the rows in `path` and the number of lines skipped because they are corrupt.

    A file that does not exist has no rows. A torn last line counts as corrupt.
    """
    try:
        rows, corrupt = read_json_lines(path)
    except FileNotFoundError:
        return [], 0
    kept = [row for row in rows if _step_of(row) is not None]
    return kept, corrupt + len(rows) - len(kept)


def branched(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what a record tells of the steps that another run made, as rows name that `parent`."""
    shared = [row for row in rows if "parent" in row]
    return {"parent": shared[-1]["parent"], "parent_step": shared[-1]["step"]} if shared else {}


class MetricsLog(JsonLines):
    """Appends rows with an int `step`, the number of optimiser steps done: 1, 2, 3, ...

    Opening it cuts what was written after `after_step`, the step of the checkpoint that training
    goes on from (0 at a fresh start), so that steps done again do not appear twice. Call `sync`
    before a checkpoint is committed: then no power cut leaves a checkpoint without its rows.
    """

    def __init__(self, path: Path, after_step: int) -> None:
        super().__init__(path)
        try:
            self._last, size = _kept(path.read_bytes(), after_step)
            self.truncate(size)
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, JSON]) -> None:
        """Write one row; its `step` must be above that of the row before."""
        step = _step_of(row)
        if step is None or step <= self._last:
            raise ValueError(
                f"metrics row has step {row.get('step')!r}; expected an int above {self._last}"
            )
        super().append(row)
        self._last = step


class NoMetrics(AbstractContextManager["NoMetrics"]):
    """The log of a rank that does not lead: nothing is written."""

    def append(self, row: Mapping[str, JSON]) -> None:
        """Write nothing."""

    def sync(self) -> None:
        """Write nothing."""

    def __exit__(self, *_: object) -> None:
        """Close nothing."""


def _kept(data: bytes, after_step: int) -> tuple[int, int]:
    """Return the last step to keep and the number of bytes up to the end of its row."""
    last, size = 0, 0
    for end, row in scan_json_lines(data):
        step = _step_of(row)
        if step is not None and step > after_step:
            break
        if step is not None:
            last, size = step, end
    return last, size
