"""One number of 64 bits for each document, in files that are neither written nor read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Numbers held in memory at a time."""


def reopened(path: Path, size: int) -> IO[bytes]:
    """Open a file to write behind its first `size` bytes, which stay.

    Raises:
        ValueError: it has fewer.
    """
    file = open(path, "r+b" if size else "wb")  # noqa: SIM115 (closed by the caller)
    if file.seek(0, os.SEEK_END) < size:
        file.close()
        raise ValueError(f"{path} has fewer than {size} bytes; run the same command again")
    file.seek(size)
    file.truncate()
    return file


def write_numbers(file: IO[bytes], numbers: NDArray[Any]) -> None:
    """Append numbers, (n,), to a file."""
    file.write(numbers.astype("<i8", copy=False).tobytes())


def id_dtype(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of 16 or 32 bits that holds every id of a vocabulary."""
    return np.dtype("<u4" if vocabulary > 1 << 16 else "<u2")


def mapped_numbers(path: Path, length: int) -> NDArray[np.int64]:
    """Map the numbers of a file into memory, (length,), of which there is one at least.

    Raises:
        ValueError: it does not hold so many, or a negative one; without `path`.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size != 8 * length:
        raise ValueError(f"it has {size} bytes, expected {8 * length}")
    found: NDArray[np.int64] = np.asarray(np.memmap(path, "<i8", "r"))
    if any((part < 0).any() for _, part in blocks(found)):
        raise ValueError("it holds a negative number")
    return found


def blocks(
    numbers: NDArray[np.int64], beyond: int = 0, size: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the index of the first number of each block of `size`, and the block.

    Each has `beyond` numbers of the next one at its end.
    """
    for first in range(0, len(numbers) - beyond, size):
        yield first, numbers[first : first + size + beyond]
