"""Threads of torch, for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Let torch use a number of threads for a while.

    Raises:
        ValueError: the number is not positive.
    """
    import torch

    if threads < 1:
        raise ValueError(f"threads is {threads}; expected at least 1")
    former = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(former)
