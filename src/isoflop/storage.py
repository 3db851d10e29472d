"""The commit protocol: everything that is written goes through here, whole or not at all.

A file or folder is written under a temporary name beside its target, fsynced, renamed, and its
parent fsynced. Nothing is overwritten in place. Only lines are appended, one write(2) each, after
a torn tail has been cut. A failed fsync is never retried, since the kernel forgets what it could
not write and a second one would succeed: temporary files are thrown away, logs closed.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from isoflop.strict_json import JSON as JSON
from isoflop.strict_json import parse_json as parse_json
from isoflop.strict_json import to_json as to_json

TEMPORARY = ".tmp-"
"""What names of unfinished files and folders start with; readers ignore them."""

MANIFEST = "manifest.json"


class StorageError(OSError):
    """Something could not be written. The message names the path, the cause and the free bytes."""

    def __init__(self, path: Path, cause: OSError) -> None:
        why = cause.strerror or str(cause)
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "; free some space, then run the same command again" if full else ""
        super().__init__(f"cannot write {path}: {why} ({_free_bytes(path)} bytes free there){hint}")
        self.errno = cause.errno


def _free_bytes(path: Path) -> int | str:
    existing = next(p for p in (path, *path.absolute().parents) if os.path.exists(p))
    try:
        return shutil.disk_usage(existing).free
    except OSError:
        return "an unknown number of"


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as cause:
        raise StorageError(path, cause) from cause


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_folder(path: Path) -> None:
    """Make the entries of the folder `path` survive a power cut.

    For whoever builds on what it finds there: a writer that was killed between its rename and this
    left an entry that is seen, yet not durable.
    """
    with _explained(path):
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(target: Path) -> Path:
    return target.with_name(TEMPORARY + secrets.token_hex(8))


def make_folder(path: Path) -> None:
    """Create the folder `path` and its parents where they are missing, durably."""
    if not os.path.isdir(path):
        make_folder(path.parent)
        with _explained(path):
            path.mkdir(exist_ok=True)
            _sync_folder(path.parent)


def inside(root: Path, *names: str) -> Path:
    """Return the path of `names` below the folder `root`, which may be a symbolic link itself.

    Raises:
        ValueError: one of the names is a symbolic link, which could lead anywhere.
    """
    path = root
    for name in names:
        path = path / name
        if path.is_symlink():
            raise ValueError(
                f"{path} is a symbolic link; expected a file or folder of its own: remove the link"
            )
    return path


# --- whole files


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _becoming(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`, to be renamed to it, which is then made durable."""
    make_folder(target.parent)
    with _explained(target):
        temporary = _temporary(target)
        try:
            yield temporary
        except BaseException:
            _delete(temporary)
            raise
        _sync_folder(target.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old content or the new, never a part.

    Missing parent folders are created. Raises StorageError; the old content is then still there,
    unless the very last step failed, the fsync of the folder that makes the rename durable.
    """
    with _becoming(path) as temporary:
        _write_new(temporary, data)
        os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: JSON) -> None:
    """Write `value` to `path` as strict, indented JSON, as `write_bytes` does."""
    write_text(path, to_json(value, indent=2) + "\n")


def create_json(path: Path, value: JSON) -> bool:
    """Write `value` to `path` where nothing is yet, whole; return whether this call did it.

    Of several that try at the same time one succeeds, and all find its content there.
    """
    with _becoming(path) as temporary:
        _write_new(temporary, (to_json(value, indent=2) + "\n").encode())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            _delete(temporary)
    return True


def read_json(path: Path) -> Any:
    """Return the value in the JSON file `path`; a ValueError names the file when malformed."""
    return parse_json(path.read_bytes(), str(path))


# --- whole folders


def _describe(path: Path, *, sync: bool) -> dict[str, str | int]:
    """Return SHA-256 and size of the plain file `path`, read back from the page cache."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        if sync:
            os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"sha256": digest, "size": file.tell()}


def _plain_files(folder: Path) -> dict[str, Path]:
    files = {}
    for entry in sorted(folder.iterdir()):
        if not stat.S_ISREG(entry.lstat().st_mode):
            raise ValueError(
                f"{entry} is not a plain file; a committed folder holds plain files, no symbolic "
                "links or subfolders"
            )
        files[entry.name] = entry
    return files


def commit_folder(
    target: Path, write: Callable[[Path], None], confirm: Callable[[], None] = lambda: None
) -> None:
    """Make the folder `target` appear with all its files and a manifest, or not at all.

    `write` is called with a temporary folder on the same file system and fills it with plain
    files in any way it likes; they are fsynced and hashed here. `confirm` is called right before
    the rename; what it raises stops the commit. Raises FileExistsError when `target` exists, since
    committed folders are never overwritten, and StorageError.
    """
    if os.path.lexists(target):
        raise FileExistsError(f"{target} exists; committed folders are never overwritten")
    with _becoming(target) as temporary:
        temporary.mkdir()
        write(temporary)
        plain = _plain_files(temporary)
        files = {name: _describe(path, sync=True) for name, path in plain.items()}
        _write_new(temporary / MANIFEST, to_json({"version": 1, "files": files}).encode())
        _sync_folder(temporary)
        confirm()
        os.replace(temporary, target)


def verify_folder(path: Path) -> None:
    """Check a committed folder against its manifest; a ValueError tells what is wrong with it.

    Finds flipped bits, truncated, missing, empty and extra files, and refuses symbolic links.
    """
    if path.is_symlink() or not path.is_dir():
        raise ValueError(f"{path} is not a folder")
    present = _plain_files(path)
    manifest_path = present.pop(MANIFEST, None)
    if manifest_path is None:
        raise ValueError(f"{path} has no {MANIFEST}")
    manifest = read_json(manifest_path)
    listed = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(listed, dict) or manifest != {"version": 1, "files": listed}:
        raise ValueError(f"{manifest_path} is not a manifest of version 1")
    if missing := sorted(set(listed) - set(present)):
        raise ValueError(f"{path} lacks {missing[0]}, which its manifest lists")
    if extra := sorted(set(present) - set(listed)):
        raise ValueError(f"{path} holds {extra[0]}, which its manifest does not list")
    for name, file in present.items():
        if _describe(file, sync=False) != listed[name]:
            raise ValueError(f"{file} is damaged: its size or SHA-256 is not the manifest's")


def discard(path: Path) -> None:
    """Delete a file or folder; readers see all of it or nothing, even if this is killed."""
    temporary = _temporary(path)
    with _explained(path):
        os.replace(path, temporary)
    _delete(temporary)


def move_folder(source: Path, target: Path) -> None:
    """Give the folder `source` the name `target`, on the same file system, where nothing is yet."""
    make_folder(target.parent)
    with _explained(target):
        os.replace(source, target)
        _sync_folder(target.parent)
        _sync_folder(source.parent)


def _delete(path: Path) -> None:
    # What resists deletion stays a temporary name that readers ignore and the next owner removes.
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def entries(folder: Path) -> list[Path]:
    """Return what lies in `folder`, by name, but for what is unfinished or being removed."""
    return [one for one in sorted(folder.iterdir()) if not one.name.startswith(TEMPORARY)]


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers left unfinished in `folder`; only for its one live writer."""
    for entry in folder.iterdir():
        if entry.name.startswith(TEMPORARY):
            _delete(entry)


# --- lines


def scan_json_lines(data: bytes) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield, for each line of `data`, the offset of its end and its object, None if corrupt.

    A last line without its newline is torn, so it counts as corrupt even where it parses.
    """
    end = 0
    for line in io.BytesIO(data):
        end += len(line)
        row: Any = None
        if line.endswith(b"\n"):
            with suppress(ValueError):
                row = parse_json(line, "line")
        yield end, row if isinstance(row, dict) else None


def read_json_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the objects in the JSONL file `path` and the number of corrupt lines skipped."""
    found = [row for _, row in scan_json_lines(path.read_bytes())]
    rows = [row for row in found if row is not None]
    return rows, len(found) - len(rows)


class JsonLines(AbstractContextManager["JsonLines"]):
    """Appends objects to a JSONL file that this process alone writes.

    Opening creates the file where it is missing and cuts a torn last line, which would otherwise
    swallow the next one. Raises ValueError for a symbolic link, StorageError where writing fails.
    Once what is in the file is in doubt, it is closed, and nothing more can be written.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self.path = path
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link; expected a plain file: remove the link")
        with _explained(path):
            new = not path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o666)
            try:
                if new:
                    _sync_folder(path.parent)
                data = path.read_bytes()  # one pread would give 2 GiB at most
                self._size = len(data)
                self.truncate(data.rfind(b"\n") + 1)
            except BaseException:
                self._abandon()
                raise

    def truncate(self, size: int) -> None:
        """Cut the file to its first `size` bytes, durably."""
        with _explained(self.path):
            if size != self._size:
                os.ftruncate(self._descriptor, size)
                self._size = size
                self.sync()

    def append(self, row: Mapping[str, JSON]) -> None:
        """Append `row` as one line; when that fails the file is left as it was."""
        line = to_json(row).encode() + b"\n"
        with _explained(self.path):
            self._check_open()
            try:
                _write_all(self._descriptor, line)
            except BaseException:
                try:
                    os.ftruncate(self._descriptor, self._size)
                except OSError:
                    self._abandon()
                raise
        self._size += len(line)

    def sync(self) -> None:
        """Make the appended lines survive a power cut."""
        with _explained(self.path):
            self._check_open()
            try:
                os.fsync(self._descriptor)
            except OSError:
                self._abandon()
                raise

    def _check_open(self) -> None:
        if self._descriptor < 0:
            raise OSError(errno.EBADF, "it is closed, as after a failed write")

    def _abandon(self) -> None:
        with suppress(OSError):
            self.close()

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with _explained(self.path):
                os.close(descriptor)

    def __exit__(self, *_: object) -> None:
        self.close()
