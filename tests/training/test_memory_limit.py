"""A limit of memory holds for a run and no longer."""

import resource

import pytest
import torch

from isoflop.training.memory import limited_memory


def test_what_goes_over_the_limit_is_told_and_the_limit_lifted() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    message = r"over the limit of 2 GiB .*--memory-gib.*allocate"
    with pytest.raises(MemoryError, match=message), limited_memory(2**31):
        torch.empty(2**30)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    torch.empty(2**30)
