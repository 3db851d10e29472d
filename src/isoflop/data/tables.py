"""One number for each document, in .npy files that are neither written nor read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Numbers held in memory at a time."""

_HEAD_BYTES = 128
"""What numpy pads the header to."""


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


class NumberWriter:
    """Writes numbers to a .npy file as they come; the same bytes as `np.save` of all of them.

    Goes on behind the first `count` numbers of a file where that is given.

    Raises:
        ValueError: the file has fewer.
    """

    def __init__(self, path: Path, count: int = 0) -> None:
        self._file = reopened(path, _HEAD_BYTES + 8 * count if count else 0)
        self._pending: list[int] = []
        self.count = count
        if not count:
            self._head()

    def _head(self) -> None:
        self._file.seek(0)
        # Padded by numpy so that it is as long for any number of numbers.
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": "<i8", "fortran_order": False, "shape": (self.count,)}
        )

    def add(self, number: int) -> None:
        """Append one number."""
        self._pending.append(number)
        if len(self._pending) >= 1 << 12:
            self._flush()

    def extend(self, numbers: NDArray[np.int64]) -> None:
        """Append numbers, (n,)."""
        self._flush()
        self._write(numbers)

    def flush(self) -> None:
        """Hand all numbers to the system."""
        self._flush()
        self._file.flush()

    def _flush(self) -> None:
        self._write(np.array(self._pending, dtype="<i8"))
        self._pending = []

    def _write(self, numbers: NDArray[np.int64]) -> None:
        self._file.write(numbers.astype("<i8", copy=False).tobytes())
        self.count += len(numbers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
                self._head()
        finally:
            self._file.close()


def id_dtype(vocabulary: int) -> np.dtype[Any]:
    """Return the smallest type of 16 or 32 bits that holds every id of a vocabulary."""
    return np.dtype("<u4" if vocabulary > 1 << 16 else "<u2")


def mapped_numbers(path: Path, length: int) -> NDArray[np.int64]:
    """Map the numbers of a file into memory, (length,).

    Raises:
        ValueError: it does not hold so many whole numbers, none of them negative; without `path`.
    """
    try:
        found: NDArray[Any] = np.asarray(np.lib.format.open_memmap(path, mode="r"))
    except Exception as error:  # numpy raises what its parser of headers does
        problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ValueError(f"it is no array ({problem})") from None
    if (
        found.shape != (length,)
        or found.dtype != np.dtype("<i8")
        or any((part < 0).any() for _, part in blocks(found))
    ):
        raise ValueError(f"it does not hold {length} whole numbers")
    return found


def blocks(
    numbers: NDArray[np.int64], beyond: int = 0, size: int = BLOCK
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield the index of the first number of each block of `size`, and the block.

    Each has `beyond` numbers of the next one at its end.
    """
    for first in range(0, len(numbers) - beyond, size):
        yield first, numbers[first : first + size + beyond]
