"""Whole files and whole folders: committed or not at all, and checked when read."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isoflop import storage
from isoflop.storage import StorageError

CALLS = ("open", "write", "fsync", "replace", "mkdir")


class FailNth:
    """Replaces a call of `os`; the n-th one fails (none for n = 0), all are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str, nth: int, code: int) -> None:
        self.count = 0
        original = getattr(os, call)

        def failing(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.count == nth:
                raise OSError(code, os.strerror(code))
            return original(*args, **kwargs)

        monkeypatch.setattr(os, call, failing)


def failures(work: Callable[[], None]) -> list[tuple[str, int]]:
    """Return every (call, n) that `work` makes, found by doing it once."""
    with pytest.MonkeyPatch.context() as patch:
        counters = {call: FailNth(patch, call, 0, 0) for call in CALLS}
        work()
        counts = {call: counter.count for call, counter in counters.items()}
    return [(call, nth) for call in CALLS for nth in range(1, counts[call] + 1)]


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


def test_write_bytes_replaces_the_content_and_makes_parents(tmp_path: Path) -> None:
    path = tmp_path / "x" / "y" / "file"
    storage.write_bytes(path, b"one")
    storage.write_bytes(path, b"\x00\xfftwo")
    assert path.read_bytes() == b"\x00\xfftwo"
    assert os.listdir(path.parent) == ["file"]


def test_a_failure_at_any_point_leaves_the_old_file_or_the_new(tmp_path: Path) -> None:
    path = tmp_path / "file"
    points = failures(lambda: storage.write_bytes(path, b"old"))
    assert {call for call, _ in points} == {"open", "write", "fsync", "replace"}
    for call, nth in points:
        storage.write_bytes(path, b"old")
        with pytest.MonkeyPatch.context() as patch:
            FailNth(patch, call, nth, errno.EIO)
            with pytest.raises(StorageError, match="Input/output error"):
                storage.write_bytes(path, b"new")
        # Only the fsync of the parent comes after the rename.
        renamed = (call, nth) in [("fsync", 2), ("open", 2)]
        assert path.read_bytes() == (b"new" if renamed else b"old"), (call, nth)
        assert leftovers(tmp_path) == []


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    storage.write_bytes(tmp_path / "file", b"0123456789")
    assert (tmp_path / "file").read_bytes() == b"0123456789"


def test_a_full_disk_is_named_with_path_and_free_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FailNth(monkeypatch, "write", 1, errno.ENOSPC)
    with pytest.raises(StorageError) as caught:
        storage.write_text(tmp_path / "file", "x")
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path / "file") in str(caught.value)
    assert "No space left on device" in str(caught.value)
    assert any(word.strip("(").isdigit() for word in str(caught.value).split())
    assert "free some space" in str(caught.value)


def test_ctrl_c_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
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


@pytest.mark.parametrize("name", ["x" * 300, "missing\0", "a/b/c" + "y" * 300])
def test_impossible_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises((StorageError, ValueError)):
        storage.write_text(tmp_path / name, "x")
    assert leftovers(tmp_path) == []


def test_json_is_strict_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    value = {"a": [float("nan"), 1.5, (float("inf"), {"b": float("-inf")})], "c": "</é>"}
    storage.write_json(path, value)
    assert storage.read_json(path) == {"a": [None, 1.5, [None, {"b": None}]], "c": "</é>"}
    assert path.read_bytes().isascii()
    assert path.read_bytes().endswith(b"}\n")


def test_floats_survive_json_bit_by_bit(tmp_path: Path) -> None:
    values = [0.1 + 0.2, 1e-308, 5e-324, 1.7976931348623157e308, -0.0]
    storage.write_json(tmp_path / "v", values)
    assert [v.hex() for v in storage.read_json(tmp_path / "v")] == [v.hex() for v in values]


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


def test_a_failed_commit_leaves_nothing_or_the_whole(tmp_path: Path) -> None:
    points = failures(lambda: storage.commit_folder(tmp_path / "first", write_two))
    assert {call for call, _ in points} == set(CALLS)
    whole = 0
    for number, (call, nth) in enumerate(points):
        target = tmp_path / f"target-{number}"
        with pytest.MonkeyPatch.context() as patch:
            FailNth(patch, call, nth, errno.ENOSPC)
            with pytest.raises(StorageError, match="No space left"):
                storage.commit_folder(target, write_two)
        if target.exists():
            storage.verify_folder(target)
            whole += 1
        assert leftovers(tmp_path) == []
    # Opening and syncing the parent: the two points after the rename.
    assert whole == 2


def test_an_error_of_the_writer_passes_through(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        write_two(folder)
        raise ArithmeticError("mine")

    with pytest.raises(ArithmeticError, match="mine"):
        storage.commit_folder(tmp_path / "target", broken)
    assert os.listdir(tmp_path) == []


def test_a_commit_that_is_not_confirmed_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "runs" / "one"

    def refuse() -> None:
        (temporary,) = target.parent.iterdir()
        assert (temporary / "manifest.json").exists(), "asked when all is written"
        raise RuntimeError("another process has it")

    with pytest.raises(RuntimeError, match="another process has it"):
        storage.commit_folder(target, lambda folder: None, refuse)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "folder"])
def test_only_plain_files_are_committed(tmp_path: Path, kind: str) -> None:
    def odd(folder: Path) -> None:
        if kind == "link":
            (folder / "odd").symlink_to("/etc/hostname")
        else:
            (folder / "odd").mkdir()

    with pytest.raises(ValueError, match="odd is not a plain file"):
        storage.commit_folder(tmp_path / "target", odd)
    assert os.listdir(tmp_path) == []


def test_nothing_committed_is_overwritten(committed: Path) -> None:
    with pytest.raises(FileExistsError, match="never overwritten"):
        storage.commit_folder(committed, lambda folder: None)
    storage.verify_folder(committed)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


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


def test_every_flipped_bit_of_a_manifest_is_found(tmp_path: Path) -> None:
    target = tmp_path / "small"
    storage.commit_folder(target, lambda folder: (folder / "x").write_bytes(b"1") and None)
    manifest = target / "manifest.json"
    good = manifest.read_bytes()
    for position in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            manifest.write_bytes(bad)
            with pytest.raises(ValueError):
                storage.verify_folder(target)


@pytest.mark.parametrize("kind", ["missing", "file", "link"])
def test_what_is_no_folder_is_refused(committed: Path, kind: str) -> None:
    path = committed.parent / "other"
    if kind == "file":
        path.write_text("x")
    elif kind == "link":
        path.symlink_to(committed)
    with pytest.raises(ValueError, match="is not a folder"):
        storage.verify_folder(path)


def test_discarding_a_folder_leaves_nothing(committed: Path) -> None:
    storage.discard(committed)
    assert os.listdir(committed.parent) == []


def test_leftovers_of_killed_writers_are_removed(committed: Path) -> None:
    parent = committed.parent
    (parent / ".tmp-0123").write_text("x")
    (parent / ".tmp-4567").mkdir()
    (parent / ".tmp-4567" / "y").write_text("x")
    (parent / ".tmp-89ab").symlink_to(committed)
    storage.remove_leftovers(parent)
    assert os.listdir(parent) == ["committed"]
    storage.verify_folder(committed)


def test_a_file_is_created_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    assert storage.create_json(path, {"who": "first"})
    assert not storage.create_json(path, {"who": "second"})
    assert storage.read_json(path) == {"who": "first"}
    assert [entry.name for entry in path.parent.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_created_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(storage.StorageError, match=r"cannot write .*a\.json: No space left"):
        storage.create_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []
