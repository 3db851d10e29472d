from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from isoflop.training import keep_freed_memory

FAULTS = """
import resource
import torch
from isoflop.training import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    [torch.ones(6 * 2**20) for _ in range(4)]
before = faults()
for _ in range(20):
    [torch.ones(6 * 2**20) for _ in range(4)]
print(faults() - before)
"""


def _page_faults(keep: bool) -> int:
    command = [sys.executable, "-c", FAULTS.format(keep=keep)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    assert _page_faults(keep=True) < _page_faults(keep=False) / 10


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
