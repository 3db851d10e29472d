"""A torn last line of metrics; a corrupt line in the middle.

Injected: both, in the metrics of an interrupted run of a study. Expected: the tail is cut before a
line is appended, the line in the middle is skipped and told of, and other runs stay visible.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from one_tiny_run import Tiny

from isoflop.runs import RunStore

CORRUPT = {
    "binary": lambda line: b"\x00\xff\xfe" + line[3:],
    "torn": lambda line: line[: len(line) // 2] + b"\n",
    "not finite": lambda line: line.replace(b'"gradient_norm":', b'"gradient_norm":NaN,"g":'),
    "JSON without its loss": lambda line: line.replace(b'"loss":', b'"lors":'),
    "a loss that is none": lambda line: line.replace(b'"loss":', b'"loss":null,"l":'),
    "JSON without its step": lambda line: line.replace(b'"step":', b'"stop":'),
}


@pytest.mark.parametrize("damage", CORRUPT)
def test_row_07_torn_and_corrupt_lines_are_cut_skipped_and_told_of(
    tmp_path: Path, damage: str
) -> None:
    tiny, sibling = Tiny.of(tmp_path), Tiny.of(tmp_path, seed=1)
    store = RunStore(tmp_path / "study")
    ids = [one.config.run_id for one in (tiny, sibling)]
    run = store.folder(ids[0])
    sibling.train(store.folder(ids[1]))
    tiny.stop(run, 3)
    metrics = run.path / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    lines[1] = CORRUPT[damage](lines[1])
    metrics.write_bytes(b"".join(lines) + b'{"step":4,"lo')

    with pytest.warns(UserWarning, match=rf"{ids[0]} lacks 1 corrupt line of its metrics"):
        record = tiny.train(run)

    rows, corrupt = run.read_metrics()
    whole = [row["step"] for row in rows if row.get("loss") is not None]
    assert whole == [1, 3, 4, 5, 6]
    assert corrupt + len(rows) == 6
    assert [point.step for point in record.curve] == whole
    assert record.state == "finished"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {one.run_id for one in store.records()} == set(ids)
