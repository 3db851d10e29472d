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


def test_rows_after_the_checkpoint_are_cut_on_resume(path: Path) -> None:
    train(path, 0, 7)
    train(path, 4, 9)
    assert steps(path) == list(range(1, 10))
    assert read_metrics(path)[1] == 0


def test_a_fresh_start_keeps_nothing(path: Path) -> None:
    train(path, 0, 7)
    train(path, 0, 2)
    assert steps(path) == [1, 2]


def test_resuming_where_the_rows_end_cuts_nothing(path: Path) -> None:
    train(path, 0, 5)
    before = path.read_bytes()
    MetricsLog(path, 5).close()
    assert path.read_bytes() == before


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


def test_a_corrupt_line_in_the_middle_is_skipped_and_reported(path: Path) -> None:
    train(path, 0, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2] = b"\x00garbage\n"
    path.write_bytes(b"".join(lines))
    assert steps(path) == [1, 2, 4, 5, 6]
    assert read_metrics(path)[1] == 1
    train(path, 5, 7)
    assert steps(path) == [1, 2, 4, 5, 6, 7]
    assert read_metrics(path)[1] == 1


@pytest.mark.parametrize(("after_step", "corrupt"), [(2, 0), (3, 1), (4, 2), (5, 2)])
def test_corrupt_lines_at_the_border_stay_while_they_can_be_kept_steps(
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
    with (
        MetricsLog(path, 3) as log,
        pytest.raises(ValueError, match="expected an int above 3"),
    ):
        log.append({"step": step})  # type: ignore[dict-item]
    assert steps(path) == [1, 2, 3]


def test_rows_without_a_step_count_as_corrupt(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n{"loss":1}\n{"step":true}\n')
    assert read_metrics(path) == ([{"step": 1}], 2)


def test_no_file_is_no_rows(path: Path) -> None:
    assert read_metrics(path) == ([], 0)


def test_rows_lost_before_the_checkpoint_do_not_take_others_with_them(path: Path) -> None:
    path.write_bytes(b'{"step":1}\n?\n{"step":3}\n')
    train(path, 5, 6)
    assert steps(path) == [1, 3, 6]
    assert read_metrics(path)[1] == 1
