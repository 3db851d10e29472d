"""Files of token ids that others made: the .bin of nanoGPT and of llm.c, and .npy.

And streams of tokens that lie in stretches of them, and are read from there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIXES = frozenset({".bin", ".npy"})
DTYPES = ("<u2", "<u4", "<i4", "<i8")

_LLM_C = {20240520: (1, "<u2"), 20240801: (7, "<u4")}
"""Magic of llm.c's token files, the version of each and what ids are
(`HEADERS_INFO` of its dev/data/data_common.py); its header is 256 int32, the third how many ids."""
_HEADER_BYTES = 1024
_DATES = range(20240101, 20300101)
"""The magics of llm.c are dates."""
_BLOCK = 1 << 20


@dataclass(frozen=True)
class IdFile:
    """A file of token ids, and how they lie in it."""

    path: str
    dtype: str
    """One of DTYPES."""
    offset: int
    """Bytes before the first id."""
    tokens: int

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.offset + self.tokens * np.dtype(self.dtype).itemsize

    def mapped(self) -> NDArray[Any]:
        """Map the ids into memory, (tokens,)."""
        return np.asarray(
            np.memmap(self.path, self.dtype, "r", offset=self.offset, shape=(self.tokens,))
        )

    def blocks(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield the ids from `start` to `stop` in blocks of about a million, each with its start.

        Raises:
            ValueError: the file became shorter.
        """
        dtype = np.dtype(self.dtype)
        with open(self.path, "rb") as file:
            file.seek(self.offset + start * dtype.itemsize)
            for first in range(start, stop, _BLOCK):
                wanted = min(stop - first, _BLOCK)
                ids = np.fromfile(file, dtype, wanted)
                if len(ids) < wanted:
                    raise ValueError(f"{self.path} changed while it was read; run again")
                yield first, ids


def id_file(path: str) -> IdFile:
    """Find out how ids lie in a .npy or else .bin file, from its header and size alone.

    A .bin is llm.c's where it begins with the magic of its token files, uint16 for GPT-2 and
    uint32 for Llama 3; it is raw uint16, as nanoGPT writes it, where it has no header.

    Raises:
        ValueError: it is neither, is cut short or holds no ids; one line.
    """
    try:
        size = os.path.getsize(path)
        is_array = os.path.splitext(path)[1].lower() == ".npy"
        found = _npy(path) if is_array else _bin(path, size)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    if size != found.bytes:
        raise ValueError(
            f"{path} has {size} bytes; expected {found.bytes}, since its header tells of "
            f"{found.tokens} ids of {np.dtype(found.dtype).name}"
        )
    if not found.tokens:
        raise ValueError(f"{path} holds no token ids; expected one at least")
    return found


def _bin(path: str, size: int) -> IdFile:
    with open(path, "rb") as file:
        head = file.read(_HEADER_BYTES)
    numbers = np.frombuffer(head[: len(head) // 4 * 4], "<i4")
    magic = int(numbers[0]) if len(numbers) else 0
    if magic in _LLM_C and len(head) == _HEADER_BYTES:
        version, dtype = _LLM_C[magic]
        if numbers[1] != version:
            raise ValueError(
                f"{path} is of version {numbers[1]} of llm.c's token files with the magic {magic}; "
                f"expected {version}"
            )
        return IdFile(path, dtype, _HEADER_BYTES, max(0, int(numbers[2])))
    # Ids that happen to begin like a date do not go on with hundreds of zeros.
    if magic in _LLM_C or (magic in _DATES and len(numbers) == 256 and not numbers[32:].any()):
        raise ValueError(
            f"{path} begins with the magic {magic}, but is no token file of llm.c; expected a "
            "header of 1,024 bytes with 20240520 (uint16) or 20240801 (uint32), or none"
        )
    if size % 2:
        raise ValueError(
            f"{path} has {size} bytes; expected an even number, since without a header of llm.c "
            "it is raw uint16"
        )
    return IdFile(path, "<u2", 0, size // 2)


def _npy(path: str) -> IdFile:
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read(file)
        except Exception as error:  # numpy raises what its parser of headers does
            problem = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise ValueError(f"{path} is no .npy file ({problem})") from None
        offset = file.tell()
    if dtype.str not in DTYPES or len(shape) != 1:
        names = ", ".join(np.dtype(one).name for one in DTYPES)
        raise ValueError(
            f"{path} holds {dtype.name} ({dtype.str}) of shape {shape}; expected token ids in one "
            f"dimension, little-endian {names}"
        )
    return IdFile(path, dtype.str, offset, int(shape[0]))


class Stretch(NamedTuple):
    """Tokens that follow one another in a file."""

    file: int
    """Index of the file."""
    start: int
    """Its first token."""
    stop: int
    """The token behind its last."""


class PointedTokens:
    """The tokens of stretches of files, one after the other; a file is mapped when first read.

    Args:
        files: where they lie.
        stretches: of which none is empty.
    """

    def __init__(self, files: Sequence[IdFile], stretches: Sequence[Stretch]) -> None:
        table = np.array(stretches, dtype=np.int64).reshape(-1, 3)
        self._file, self._start = table[:, 0], table[:, 1]
        self._last = np.cumsum(table[:, 2] - table[:, 1])
        self._first = self._last - (table[:, 2] - table[:, 1])
        self._mapped = cache(lambda index: files[index].mapped())

    def __len__(self) -> int:
        return int(self._last[-1]) if len(self._last) else 0

    def __getitem__(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the ids at positions of the stream, an array of any shape."""
        stretch = np.searchsorted(self._last, positions, side="right")
        within = positions - self._first[stretch] + self._start[stretch]
        file = self._file[stretch]
        found = np.empty(positions.shape, dtype=np.int64)
        for index in np.unique(file).tolist():
            here = file == index
            found[here] = self._mapped(index)[within[here]]
        return found
