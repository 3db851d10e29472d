"""Which tokens a block selects: by position in the window, and by vocabulary id.

Axes: R routed blocks, W windows, T time, V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import TokenSelection

POSITION_RANGES = 16
"""Equal ranges that the positions of a window are put into, or one for each where T is smaller."""


class SelectionSums:
    """Counts selected tokens by routed block, position and id.

    Args:
        routed: R.
        sequence_length: T.
        vocabulary: V.
    """

    def __init__(self, routed: int, sequence_length: int, vocabulary: int) -> None:
        self._windows = 0
        self._at = np.zeros((routed, sequence_length), dtype=np.int64)
        self._occurrences = np.zeros(vocabulary, dtype=np.int64)
        self._of = np.zeros((routed, vocabulary), dtype=np.int64)
        self._anywhere = np.zeros(vocabulary, dtype=np.int64)

    def add(self, tokens: NDArray[np.int64], selected: NDArray[np.bool_]) -> None:
        """Add windows: ids (W, T), and where each block processed them, (R, W, T)."""
        vocabulary = len(self._occurrences)
        self._windows += len(tokens)
        self._at += selected.sum(1)
        self._occurrences += np.bincount(tokens.ravel(), minlength=vocabulary)
        self._anywhere += np.bincount(tokens[selected.any(0)], minlength=vocabulary)
        for index, mask in enumerate(selected):
            self._of[index] += np.bincount(tokens[mask], minlength=vocabulary)

    def realised_capacity(self, index: int) -> float:
        """Return the share of tokens that the routed block with this index processed."""
        return float(self._at[index].mean() / self._windows)

    def share_by_position(self, index: int) -> tuple[float, ...]:
        """Return the share selected in each range of positions, in order."""
        parts = np.array_split(self._at[index], min(POSITION_RANGES, self._at.shape[1]))
        return tuple(float(part.mean() / self._windows) for part in parts)

    def frequent(self, minimum: int) -> NDArray[np.int64]:
        """Return the ids that occur at least `minimum` times, ascending."""
        return np.flatnonzero(self._occurrences >= max(1, minimum))

    def never(self, minimum: int, index: int | None = None) -> tuple[int, ...]:
        """Return the frequent ids that a block never selects; with None, that no block does."""
        counts = self._anywhere if index is None else self._of[index]
        ids = self.frequent(minimum)
        return tuple(ids[counts[ids] == 0].tolist())

    def most_selected(self, minimum: int, index: int) -> list[TokenSelection]:
        """Return the frequent ids by share selected in a block, the largest first.

        Ties go to the id that occurs more often, then to the lower one.
        """
        return sorted(
            self._rows(minimum, index), key=lambda one: (-one.share, -one.occurrences, one.token)
        )

    def least_selected(self, minimum: int, index: int) -> list[TokenSelection]:
        """Return the same with the smallest share first; ties as in `most_selected`."""
        return sorted(
            self._rows(minimum, index), key=lambda one: (one.share, -one.occurrences, one.token)
        )

    def _rows(self, minimum: int, index: int) -> list[TokenSelection]:
        ids = self.frequent(minimum)
        columns = (ids, self._occurrences[ids], self._of[index][ids])
        return [
            TokenSelection(token=token, occurrences=occurrences, selected=selected)
            for token, occurrences, selected in zip(*(c.tolist() for c in columns), strict=True)
        ]
