"""Whole files and whole folders: committed or not at all, and checked when read."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from given import flip
from isoflop import storage
from isoflop.storage import StorageError

CALLS = ("open", "write", "fsync", "replace", "mkdir")


def fail(patch: pytest.MonkeyPatch, nth: int, code: int) -> list[str]:
    """Have the nth of these calls of `os` fail, and return a list that takes the names of all."""
    made: list[str] = []
    for call, real in [(call, getattr(os, call)) for call in CALLS]:

        def failing(*given, call=call, real=real, **more):
            made.append(call)
            if len(made) == nth:
                raise OSError(code, os.strerror(code))
            return real(*given, **more)

        patch.setattr(os, call, failing)
    return made


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.rglob("*") if p.name.startswith(storage.TEMPORARY)]


def write_two(folder: Path) -> None:
    (folder / "a.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "b.txt").write_text("hello")


@pytest.fixture
def committed(tmp_path: Path) -> Path:
    target = tmp_path / "deep" / "committed"
    storage.commit_folder(target, write_two)
    return target


# --- files


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_failure_at_any_point_leaves_the_old_or_the_new(tmp_path: Path, kind: str) -> None:
    def work(number: int) -> None:
        if kind == "file":
            storage.write_bytes(tmp_path / f"{number}", b"new")
        else:
            storage.commit_folder(tmp_path / f"{number}", write_two)

    with pytest.MonkeyPatch.context() as patch:
        calls = fail(patch, 0, errno.EIO)
        work(0)
    assert set(calls) == set(CALLS) - ({"mkdir"} if kind == "file" else set())
    new = []
    for nth in range(1, len(calls) + 1):
        target = tmp_path / f"{nth}"
        if kind == "file":
            target.write_bytes(b"old")
        with pytest.MonkeyPatch.context() as patch:
            fail(patch, nth, errno.EIO)
            with pytest.raises(StorageError, match="Input/output error"):
                work(nth)
        if kind == "file":
            new.append({b"old": False, b"new": True}[target.read_bytes()])
        else:
            new.append(target.exists() and storage.verify_folder(target) is None)
        assert leftovers(tmp_path) == []
    # Only opening and syncing the parent come after the rename.
    assert new == [False] * (len(calls) - 2) + [True] * 2


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    storage.write_bytes(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        storage.write_text(tmp_path / "file", "x")
    assert os.listdir(tmp_path) == []


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "link").symlink_to(outside)
    storage.write_text(tmp_path / "link", "new")
    assert outside.read_text() == "mine"
    assert not (tmp_path / "link").is_symlink()


def test_json_is_strict_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value = {"a": [float("nan"), 1.5, (float("inf"), {"b": float("-inf")})], "c": "</é>"}
    storage.write_json(path, value)
    assert storage.read_json(path) == {"a": [None, 1.5, [None, {"b": None}]], "c": "</é>"}
    assert path.read_bytes().isascii()
    assert path.read_bytes().endswith(b"}\n")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[NaN]", b"\xff\xfe", b"{} {}", b"[" * 100_000, b"[" + b"9" * 5000 + b"]"]
)
def test_malformed_json_is_refused_with_the_file_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"broken\.json is not valid JSON"):
        storage.read_json(path)


# --- folders


def test_a_committed_folder_verifies(committed: Path) -> None:
    storage.verify_folder(committed)
    assert sorted(os.listdir(committed)) == ["a.bin", "b.txt", "manifest.json"]
    manifest = json.loads((committed / "manifest.json").read_text())
    assert manifest["files"]["b.txt"] == {
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "size": 5,
    }


def test_a_commit_that_is_not_confirmed_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one"

    def refuse() -> None:
        (temporary,) = target.parent.iterdir()
        assert (temporary / "manifest.json").exists(), "asked when all is written"
        raise RuntimeError("another process has it")

    with pytest.raises(RuntimeError, match="another process has it"):
        storage.commit_folder(target, lambda folder: None, refuse)
    assert list(target.parent.iterdir()) == []


ODD: dict[str, tuple[Callable[[Path], object], type[Exception], str]] = {
    "link": (lambda f: (f / "odd").symlink_to("/etc/hostname"), ValueError, "odd is not a plain"),
    "folder": (lambda f: (f / "odd").mkdir(), ValueError, "odd is not a plain file"),
    "error": (lambda f: (write_two(f), 1 / 0), ZeroDivisionError, "division"),
}


@pytest.mark.parametrize("kind", ODD)
def test_only_plain_files_are_committed_and_errors_pass_through(tmp_path: Path, kind: str) -> None:
    write, error, message = ODD[kind]
    with pytest.raises(error, match=message):
        storage.commit_folder(
            tmp_path / "target", lambda folder: (write_two(folder), write(folder))
        )
    assert os.listdir(tmp_path) == []


def test_nothing_committed_is_overwritten(committed: Path) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        storage.commit_folder(committed, lambda folder: None)
    storage.verify_folder(committed)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (lambda f: flip(f / "a.bin"), "a.bin is damaged"),
    "truncated": (lambda f: os.truncate(f / "a.bin", 100), "a.bin is damaged"),
    "empty": (lambda f: os.truncate(f / "b.txt", 0), "b.txt is damaged"),
    "missing": (lambda f: (f / "b.txt").unlink(), "lacks b.txt"),
    "extra": (lambda f: (f / "c").write_text(""), "holds c, which"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has no manifest"),
    "empty manifest": (lambda f: os.truncate(f / "manifest.json", 0), "not valid JSON"),
    "other manifest": (lambda f: (f / "manifest.json").write_text("[1]"), "not a manifest"),
    "other version": (
        lambda f: (f / "manifest.json").write_text('{"version":2,"files":{}}'),
        "not a manifest of version 1",
    ),
    "link": (lambda f: ((f / "b.txt").unlink(), (f / "b.txt").symlink_to("a.bin")), "plain file"),
    "subfolder": (lambda f: (f / "d").mkdir(), "plain file"),
    "pipe": (lambda f: os.mkfifo(f / "p"), "plain file"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(committed: Path, damage: str) -> None:
    inflict, message = DAMAGES[damage]
    inflict(committed)
    with pytest.raises(ValueError, match=message):
        storage.verify_folder(committed)


def test_what_is_no_folder_is_refused(committed: Path) -> None:
    (committed.parent / "file").write_text("x")
    (committed.parent / "link").symlink_to(committed)
    for name in ("missing", "file", "link"):
        with pytest.raises(ValueError, match="is not a folder"):
            storage.verify_folder(committed.parent / name)


def test_leftovers_of_killed_writers_are_removed(committed: Path) -> None:
    parent = committed.parent
    (parent / ".tmp-0123").write_text("x")
    (parent / ".tmp-4567").mkdir()
    (parent / ".tmp-4567" / "y").write_text("x")
    (parent / ".tmp-89ab").symlink_to(committed)
    assert storage.entries(parent) == [committed]
    storage.remove_leftovers(parent)
    assert os.listdir(parent) == ["committed"]
    storage.verify_folder(committed)


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    assert storage.create_json(path, {"who": "first"})
    assert not storage.create_json(path, {"who": "second"})
    assert storage.read_json(path) == {"who": "first"}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]
