"""A pickle payload in any file that we load.

Injected: payloads as a bare pickle, and as torch and numpy save them, in place of every file that
is read. Expected: never executed, and refused.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_file import JSON_FILES, OTHER_FILES, Loaded

from isoflop.runs import read_metrics


class Watch:
    """What unpicklers look up; Python has no way to take a hook back, so it is switched off."""

    def __init__(self) -> None:
        self.on = False
        self.found: list[tuple[object, ...]] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event == "pickle.find_class":
            self.found.append(arguments)

    @contextmanager
    def watching(self) -> Iterator[None]:
        self.found.clear()
        self.on = True
        try:
            yield
        finally:
            self.on = False

    def saw_the_payload(self) -> bool:
        return any("mkdir" in arguments for arguments in self.found)


@pytest.fixture(scope="module")
def watch() -> Watch:
    return Watch()


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, executed: Path) -> None:
        self.executed = executed

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.executed),)


def of_torch(payload: Payload) -> bytes:
    content = io.BytesIO()
    torch.save({"model": payload}, content)
    return content.getvalue()


def of_numpy(payload: Payload) -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([payload], dtype=object), allow_pickle=True)
    return content.getvalue()


PAYLOADS = {
    "text": lambda payload: pickle.dumps(payload, protocol=0),
    "binary": lambda payload: pickle.dumps(payload),
    "torch": of_torch,
    "numpy": of_numpy,
}


def load(watch: Watch, file: Loaded, folder: Path, content: bytes) -> str | None:
    """Load the file and return what was said against it, None where it was taken."""
    folder.mkdir()
    file.put(folder, content)
    with watch.watching():
        try:
            file.load(folder)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def test_the_watch_sees_a_pickle_that_is_executed(tmp_path: Path, watch: Watch) -> None:
    payload = Payload(tmp_path / "executed")
    with watch.watching():
        torch.load(io.BytesIO(of_torch(payload)), weights_only=False)
    assert (tmp_path / "executed").exists()
    assert watch.saw_the_payload()


@pytest.mark.parametrize("file", [*JSON_FILES, *OTHER_FILES], ids=lambda file: file.name)
def test_row_21_a_pickle_is_never_executed(tmp_path: Path, watch: Watch, file: Loaded) -> None:
    payload = Payload(tmp_path / "executed")
    for name, made in PAYLOADS.items():
        told = load(watch, file, tmp_path / name, made(payload))
        assert not payload.executed.exists(), name
        assert not watch.saw_the_payload(), name
        assert told is not None, name


def test_metrics_of_pickles_are_corrupt_lines(tmp_path: Path, watch: Watch) -> None:
    payload = Payload(tmp_path / "executed")
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n' + pickle.dumps(payload) + b"\n")
    with watch.watching():
        rows, corrupt = read_metrics(path)
    assert rows == [{"step": 1}]
    assert corrupt > 0
    assert not payload.executed.exists()
    assert not watch.saw_the_payload()
