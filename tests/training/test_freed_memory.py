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
assert keep_freed_memory(large=True)
def use():
    return [torch.ones(size * 2**20) for size in (6, 6, 6, 12)]
for _ in range(3):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    command = [sys.executable, "-c", FAULTS]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # 80 tensors of 24 and 48 MB are over half a million pages; by default most are faulted in anew.
    # What is kept may grow once more by the largest.
    assert int(done.stdout) < 20_000


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
