"""A stream of tokens that lies in stretches of other files, and is read from there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoflop.data.ids.files import IdFile


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
