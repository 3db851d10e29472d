"""Appending and reading lines: torn tails, corrupt lines, failed writes."""

import errno
import os
from pathlib import Path

import pytest

from isoflop.storage import JsonLines, StorageError, read_json_lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new" / "lines.jsonl"


def fails(code: int):
    """A system call that fails."""

    def failing(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return failing


def half_then(code: int):
    """A write of which only a part comes through before it fails."""
    write, calls = os.write, []

    def writing(descriptor: int, data: bytes) -> int:
        calls.append(data)
        return fails(code)() if len(calls) == 2 else write(descriptor, data[:4])

    return writing


def test_rows_come_back_and_each_is_one_write(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = [], os.write

    def noted(descriptor: int, data: bytes) -> int:
        written.append(bytes(data))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", noted)
    with JsonLines(path) as lines:
        lines.append({"step": 1, "loss": float("nan")})
        lines.append({"step": 2, "text": "a\nb\r\u2028"})
    with JsonLines(path) as lines:
        lines.append({"step": 3, "text": "x" * 100_000})
    rows = [{"step": 1, "loss": None}, {"step": 2, "text": "a\nb\r\u2028"}]
    assert read_json_lines(path) == ([*rows, {"step": 3, "text": "x" * 100_000}], 0)
    assert len(written) == 3
    assert written[0] == b'{"step":1,"loss":null}\n'


@pytest.mark.parametrize("tail", [b'{"step":2,"lo', b'{"step":2}', b"\xff\x00", b"x" * 200_000])
@pytest.mark.parametrize("rows", [[], [{"step": 1}]])
def test_a_torn_tail_is_cut_before_appending(path: Path, tail: bytes, rows: list) -> None:
    with JsonLines(path) as lines:
        for row in rows:
            lines.append(row)
    with path.open("ab") as file:
        file.write(tail)
    assert read_json_lines(path) == (rows, 1)
    with JsonLines(path) as lines:
        lines.append({"step": 2})
    assert read_json_lines(path) == ([*rows, {"step": 2}], 0)


@pytest.mark.parametrize("bad", [b"\xff\xfe", b"[1]", b"5", b"", b'{"a":NaN}', b'{"a":1}{"b":2}'])
def test_a_corrupt_line_is_skipped_and_counted(path: Path, bad: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"step":1}\n' + bad + b'\n{"step":3}\n')
    assert read_json_lines(path) == ([{"step": 1}, {"step": 3}], 1)


def test_a_failed_write_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JsonLines(path) as lines:
        lines.append({"step": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half_then(errno.ENOSPC))
            with pytest.raises(StorageError, match=r"lines\.jsonl: No space left.*bytes free"):
                lines.append({"step": 2})
        assert read_json_lines(path) == ([{"step": 1}], 0)
        lines.append({"step": 2})
    assert read_json_lines(path) == ([{"step": 1}, {"step": 2}], 0)


def test_a_failed_sync_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with JsonLines(path) as lines:
        lines.append({"step": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fails(errno.EIO))
            with pytest.raises(StorageError, match="Input/output error"):
                lines.sync()
        # The kernel has dropped what it could not write, so a second fsync would seem to succeed.
        for again in (lines.sync, lambda: lines.append({"step": 2})):
            with pytest.raises(StorageError, match=r"lines\.jsonl: it is closed"):
                again()


@pytest.mark.parametrize("call", ["fsync", "ftruncate"])
def test_a_tail_that_cannot_be_cut_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"step":1}\n{"st')
    monkeypatch.setattr(os, call, fails(errno.EIO))
    with pytest.raises(StorageError, match=r"lines\.jsonl: Input/output error"):
        JsonLines(path)


def test_nothing_is_appended_behind_a_part_of_a_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with JsonLines(path) as lines:
        lines.append({"step": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half_then(errno.EIO))
            patch.setattr(os, "ftruncate", fails(errno.EIO))
            with pytest.raises(StorageError, match="Input/output error"):
                lines.append({"step": 2})
        with pytest.raises(StorageError, match="it is closed"):
            lines.append({"step": 2})
    assert read_json_lines(path) == ([{"step": 1}], 1)
