"""A fault at every call of some work that changes the disk, one after the other."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from isoflop import checkpoint

WRITES = ((os, "write"), (Path, "write_text"), (checkpoint, "save_file"))
"""The last is the tensor library's, which writes by itself."""
CHANGES = tuple(
    (os, name)
    for name in ("open", "ftruncate", "replace", "rename", "link", "mkdir", "unlink", "rmdir")
)


@dataclass
class Calls:
    """The calls that were made, and which of them is struck."""

    nth: int
    """From 0."""
    strike: Callable[[], None]
    lasting: bool
    """Strike at every later call of its kind, too."""
    made: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    """Files that were synced once more after their fsync was struck."""
    _failed: set[str] = field(default_factory=set)

    @property
    def struck(self) -> str | None:
        """The kind of call that is struck, None where there are fewer."""
        return self.made[self.nth] if self.nth < len(self.made) else None

    def note(self, kind: str, *arguments: Any) -> None:
        """Strike, or let a call go on."""
        if kind == "open" and not arguments[1] & os.O_CREAT:
            return
        self.made.append(kind)
        path = os.readlink(f"/proc/self/fd/{arguments[0]}") if kind == "fsync" else ""
        if path in self._failed:
            self.again.append(path)
        if len(self.made) - 1 == self.nth or (self.lasting and kind == self.struck):
            if path:
                self._failed.add(path)
            self.strike()


@contextmanager
def struck_at(nth: int, strike: Callable[[], None], lasting: bool = False) -> Iterator[Calls]:
    """Call `strike` before the n-th call that changes the disk."""
    calls = Calls(nth, strike, lasting)
    with pytest.MonkeyPatch.context() as patch:
        for holder, name in (*WRITES, *CHANGES, (os, "fsync")):
            kind = "write" if (holder, name) in WRITES else name
            original = getattr(holder, name)

            def hooked(
                *arguments: Any, kind: str = kind, original: Any = original, **more: Any
            ) -> Any:
                calls.note(kind, *arguments)
                return original(*arguments, **more)

            patch.setattr(holder, name, hooked)
        yield calls


def killed(work: Callable[[], None], nth: int) -> bool:
    """Do some work in a child that is killed at its n-th call; return whether it made so many."""
    with warnings.catch_warnings():
        # Python 3.12 warns of forking beside threads; this child makes no use of any.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            with struck_at(nth, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                work()
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0
