"""A disk in memory, on which thousands of fsyncs take no time, and sandboxes for commands."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_commands import Sandbox
from recorded_study import fill

MEMORY = Path("/dev/shm")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory; `tmp_path` where there is no such disk."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def box(tmp_path: Path) -> Sandbox:
    """A sandbox with a study that was never run."""
    return Sandbox(tmp_path)


@pytest.fixture(scope="session")
def _recorded(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    made = Sandbox(tmp_path_factory.mktemp("recorded"))
    fill(made)
    return made


@pytest.fixture
def recorded(_recorded: Sandbox, tmp_path: Path) -> Sandbox:
    """A sandbox with a study of many runs, all of what commands read about it included."""
    return _recorded.copied(tmp_path)
