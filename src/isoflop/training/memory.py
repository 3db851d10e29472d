"""The memory of a training process: kept between steps, and bounded."""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4
_MAPS = 65536
_LARGEST = 2**31 - 1
_EXHAUSTED = ("allocate memory", "bad_alloc", "could not create a memory", "create a primitive")
"""What torch and its libraries say when an allocation fails."""
_OOM_SCORE = "500"
"""Half of all memory is added to what the process uses when the system looks for a victim."""


def keep_freed_memory(*, large: bool = False) -> bool:
    """Tell glibc to keep what is freed, for the next step to use; return whether it will.

    By default tensors of a few MB go back to the system when freed, and every step takes the page
    faults of getting them again: 1.2 to 1.4 times the time of a step at width 32 to 48. Numbers do
    not change. Elsewhere than on Linux with glibc nothing happens.

    Args:
        large: of any size, else up to 32 MiB. That saves a step with larger tensors 3 to 4% of its
            time, but what is kept lies scattered: up to a quarter more than is needed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    # It answers 1 for done. glibc takes 32 MiB at most for the mmap threshold unless it is fixed.
    settings = (
        (_MMAP_THRESHOLD, 2**25),
        (_MMAP_MAX, 0 if large else _MAPS),
        (_TRIM_THRESHOLD, _LARGEST),
        (_TOP_PAD, 2**26),
    )
    return all(mallopt(ctypes.c_int(name), ctypes.c_int(value)) == 1 for name, value in settings)


def is_exhaustion(error: Exception) -> bool:
    """Return whether an error says that memory ran out, on a CPU or a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _EXHAUSTED)


@contextmanager
def limited_memory(limit_bytes: int | None) -> Iterator[None]:
    """Bound the memory of this process while the context lasts; None for no bound.

    What is counted is RLIMIT_DATA: private writable memory, which tensors live in. RLIMIT_AS counts
    address space, of which torch's libraries and memory-mapped corpora take gigabytes without
    using them.

    Raises:
        MemoryError: an allocation went over the limit.
    """
    if limit_bytes is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    lowest = limit_bytes if hard == resource.RLIM_INFINITY else min(limit_bytes, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (lowest, hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
        raise MemoryError(
            f"over the limit of {limit_bytes / 2**30:.3g} GiB of memory for a run (--memory-gib): "
            f"{error}"
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def volunteer_for_the_oom_killer() -> None:
    """Ask the system to end this process before its scheduler when memory runs out."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
