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


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), limited_memory(2**32):
        raise RuntimeError("shapes differ")


def test_no_limit_is_none() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with limited_memory(None):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
