"""What a disk may hold after a power cut at any moment of some work.

`os` is hooked. An fsync of a file makes its present content durable, one of a folder its present
entries; what was there at the start is durable. After every call that changes something, three
disks are kept: one where all that is not durable is lost, one where entries of folders survive and
contents that were not synced do not (as file systems do that write data late), and one where
everything survives. They are the extremes: a file system may keep any part of what is not durable.

Not covered: a disk that says it wrote and did not; a file that holds a part of what was written
since its last fsync, which only lines are robust to (fault row 7); entries that survive by
themselves out of the order in which they were made.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHANGES = ("open", "write", "ftruncate", "replace", "rename", "mkdir", "unlink", "rmdir", "fsync")

Tree = dict[str, "bytes | Tree"]
"""A folder: files with their content, folders with theirs."""


@dataclass
class Recorder:
    """Keeps what may be left of a folder while it is worked on."""

    root: Path
    committed: Any = None
    """Set by the work once something is reported as committed."""
    disks: list[tuple[Any, Tree]] = field(default_factory=list)
    """What had been said to be committed at a moment, and what a power cut may leave then."""
    _contents: dict[int, bytes] = field(default_factory=dict)
    _entries: dict[int, dict[str, int]] = field(default_factory=dict)
    _folders: set[int] = field(default_factory=set)
    _held: dict[int, int] = field(default_factory=dict)

    def start(self) -> None:
        """Take everything below the folder for durable."""
        self._sync(self.root)
        for path in self.root.rglob("*"):
            self._sync(path)

    def stop(self) -> None:
        """Let go of what is held."""
        for descriptor in self._held.values():
            os.close(descriptor)

    def synced(self, descriptor: int) -> None:
        """Note the fsync of a file or folder."""
        self._sync(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    def changed(self) -> None:
        """Keep what a power cut at this moment may leave."""
        root, now = self._hold(self.root), self._all_entries(self.root)
        for disk in (
            self._tree(root, self._entries, self._contents),
            self._tree(root, now, self._contents),
            self._tree(root, now, None),
        ):
            if (self.committed, disk) not in self.disks:
                self.disks.append((self.committed, disk))

    def _hold(self, path: Path) -> int:
        """Return the inode of a path and keep it open, so that its number is not given again."""
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            self._folders.add(status.st_ino)
        if status.st_ino not in self._held:
            self._held[status.st_ino] = os_open(path, os.O_RDONLY)
        return status.st_ino

    def _sync(self, path: Path) -> None:
        inode = self._hold(path)
        if inode in self._folders:
            self._entries[inode] = {name: self._hold(path / name) for name in os.listdir(path)}
        else:
            self._contents[inode] = self._now(inode)

    def _now(self, inode: int) -> bytes:
        return os.pread(self._held[inode], os.fstat(self._held[inode]).st_size, 0)

    def _all_entries(self, folder: Path) -> dict[int, dict[str, int]]:
        found = {
            self._hold(folder): {name: self._hold(folder / name) for name in os.listdir(folder)}
        }
        for name in os.listdir(folder):
            if (folder / name).is_dir():
                found |= self._all_entries(folder / name)
        return found

    def _tree(
        self, inode: int, entries: dict[int, dict[str, int]], contents: dict[int, bytes] | None
    ) -> Tree:
        tree: Tree = {}
        for name, child in entries.get(inode, {}).items():
            if child in self._folders:
                tree[name] = self._tree(child, entries, contents)
            else:
                tree[name] = self._now(child) if contents is None else contents.get(child, b"")
        return tree


os_open = os.open


@contextmanager
def recorded(root: Path) -> Iterator[Recorder]:
    """Record every moment at which the power may fail while a folder is worked on."""
    recorder = Recorder(root)
    recorder.start()
    with pytest.MonkeyPatch.context() as patch:
        for name in CHANGES:
            original = getattr(os, name)

            def hooked(
                *arguments: Any, name: str = name, original: Any = original, **more: Any
            ) -> Any:
                outcome = original(*arguments, **more)
                if name == "fsync":
                    recorder.synced(arguments[0])
                # Opening matters where it makes a file.
                if name != "open" or arguments[1] & os.O_CREAT:
                    recorder.changed()
                return outcome

            patch.setattr(os, name, hooked)
        yield recorder
    recorder.changed()
    recorder.stop()


def lay_out(tree: Tree, folder: Path) -> Path:
    """Write a recorded disk into a new folder and return it."""
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            lay_out(content, folder / name)
    return folder


def every_disk(recorder: Recorder, place: Path) -> Iterator[tuple[Path, Any]]:
    """Yield each different disk that a power cut may leave, and what was committed by then."""
    place.mkdir()
    for number, (committed, disk) in enumerate(recorder.disks):
        yield lay_out(disk, place / str(number)), committed
