"""Exactly one metric row per step, whatever was killed in between."""

import random
from pathlib import Path

import pytest

from isoflop.runs import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def train(path: Path, after_step: int, until: int) -> None:
    with MetricsLog(path, after_step) as log:
        for step in range(after_step + 1, until + 1):
            log.append({"step": step, "loss": 3.0 / step})


def steps(path: Path) -> list[int]:
    return [row["step"] for row in read_metrics(path)[0]]


@pytest.mark.parametrize("after", [0, 4, 7])
def test_rows_after_the_checkpoint_are_cut_on_resume(path: Path, after: int) -> None:
    train(path, 0, 7)
    MetricsLog(path, after).close()
    assert steps(path) == list(range(1, after + 1))
    train(path, after, 9)
    assert read_metrics(path)[1] == 0
    assert steps(path) == list(range(1, 10))


def test_kills_at_any_byte_leave_one_row_per_step(path: Path) -> None:
    rng = random.Random(0)
    train(path, 0, 20)
    whole = path.read_bytes()
    for _ in range(50):
        # What was synced before the checkpoint of step 6 is there, the rest is torn anywhere.
        checkpoint = whole.index(b'{"step":7')
        path.write_bytes(whole[: rng.randint(checkpoint, len(whole))])
        train(path, 6, 20)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(("after_step", "corrupt"), [(2, 0), (4, 0), (5, 2)])
def test_corrupt_lines_stay_while_a_row_that_is_kept_comes_after_them(
    path: Path, after_step: int, corrupt: int
) -> None:
    path.write_bytes(b'{"step":1}\n{"step":2}\n?\n?\n{"step":5}\n{"step":6}\n')
    train(path, after_step, 7)
    seen = [1, 2, 5] if after_step == 5 else [1, 2]
    assert steps(path) == [*seen, *range(after_step + 1, 8)]
    assert read_metrics(path)[1] == corrupt


@pytest.mark.parametrize("step", [3, 2, 0, None, "4", 4.0, True])
def test_a_row_needs_the_next_step(path: Path, step: object) -> None:
    train(path, 0, 3)
    with MetricsLog(path, 3) as log, pytest.raises(ValueError, match="expected an int above 3"):
        log.append({"step": step})  # type: ignore[dict-item]
    assert steps(path) == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "after", "seen", "corrupt"),
    [
        (b"", 0, [], 0),
        (b'{"step":1}\n{"loss":1}\n{"step":true}\n{"step":3}\n', 3, [1, 3], 2),
        # Lost before the checkpoint; others do not go with them.
        (b'{"step":1}\n?\n{"step":3}\n', 5, [1, 3], 1),
    ],
)
def test_what_has_no_step_is_corrupt(
    path: Path, content: bytes, after: int, seen: list[int], corrupt: int
) -> None:
    assert read_metrics(path) == ([], 0)
    path.write_bytes(content)
    assert (steps(path), read_metrics(path)[1]) == (seen, corrupt)
    train(path, after, after + 1)
    assert (steps(path), read_metrics(path)[1]) == ([*seen, after + 1], corrupt)
