"""Training batches as a function of (seed, step): no state to save, none to lose.

Their order is a keyed permutation, computed where it is asked for and stored nowhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Windows
from isoflop.data.store import TokenSplit
from isoflop.data.windows import WholeWindows

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TURNS = np.arange(1, 9, dtype=np.uint64)[:, None]
"""Rounds of the network, (8, 1)."""


def permute(
    index: NDArray[np.int64], size: int, seed: int, epoch: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return where the permutation of 0..size-1 keyed by (seed, epoch) sends each index.

    A Feistel network permutes the next power of four; what falls outside is sent through again
    until it falls inside (cycle walking): at most four passes on average.
    `index` (n,) is from 0 to size - 1, `epoch` (n,) that of each, `seed` not negative.
    """
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = _mix(_key(seed, epoch) + _TURNS * (_GOLDEN + np.uint64(1)))
    value = index.astype(np.uint64)
    outside = np.ones(len(value), dtype=np.bool_)
    while outside.any():
        value[outside] = _feistel(value[outside], keys[:, outside], half, mask)
        outside = value >= np.uint64(size)
    return value.astype(np.int64)


def draw(
    bound: NDArray[np.int64], seed: int, epoch: NDArray[np.int64], item: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return integers drawn uniformly from 0 up to and including `bound`.
    The key is `seed` with `epoch` (n,) and `item` (n,), what is drawn for; none is negative.
    """
    value = _mix(_key(seed, epoch) ^ _mix(item.astype(np.uint64) + _GOLDEN))
    # The remainder favours low values by one part in 2^64 / bound.
    return (value % (bound.astype(np.uint64) + np.uint64(1))).astype(np.int64)


def _key(seed: int, epoch: NDArray[np.int64]) -> NDArray[np.uint64]:
    return _mix(epoch.astype(np.uint64) + _mix(np.full(1, seed % (1 << 64), dtype=np.uint64)))


def _feistel(
    value: NDArray[np.uint64], keys: NDArray[np.uint64], half: np.uint64, mask: np.uint64
) -> NDArray[np.uint64]:
    left, right = value >> half, value & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) & mask)
    return (left << half) | right


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64 bits: a multiply-and-shift finaliser in the manner of SplitMix64."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class Batches:
    """Batches of windows of a split.

    A window predicts T tokens from the ones before them. An epoch goes through all windows in an
    order keyed by (seed, epoch); what is left of an epoch begins the next batch, so no window is
    dropped.

    Windows of the stream follow one another: window i predicts tokens i*T+1 to i*T+T; the tail that
    fills none is left out. A document of L tokens, its end counted, holds n = (L-1) // T windows.
    The rest of it is slack: its windows follow each other from an offset drawn uniformly from 0 to
    L-1 - n*T, keyed by (seed, epoch, document), so that over epochs every token of it is seen.

    Args:
        split: the token stream.
        sequence_length: T.
        sequences_per_step: B, over all ranks.
        seed: decides the order, and where windows begin in documents.
        windows: what windows are cut from, the stream or single documents.

    Raises:
        ValueError: the split, or each of its documents, is shorter than one window.
    """

    def __init__(
        self,
        split: TokenSplit,
        sequence_length: int,
        sequences_per_step: int,
        seed: int,
        windows: Windows = "stream",
    ) -> None:
        self._stream = split.stream
        self._length = sequence_length
        self._sequences = sequences_per_step
        self._seed = seed
        self._whole = None if windows == "stream" else WholeWindows(split, sequence_length)
        whole = (len(split.tokens) - 1) // sequence_length
        if whole < 1:
            raise ValueError(
                f"sequence_length is {sequence_length}, but the split has {len(split.tokens)} "
                "tokens; expected more than one sequence: use a larger corpus or shorter sequences"
            )
        self._offsets = split.offsets
        self.windows = whole if self._whole is None else self._whole.windows
        """Windows in an epoch."""

    def epochs(self, steps: int) -> float:
        """Return how often `steps` steps go through the windows."""
        return steps * self._sequences / self.windows

    def batch(self, step: int) -> NDArray[np.int64]:
        """Return tokens (B, T + 1); inputs are [:, :-1], targets [:, 1:]."""
        first = step * self._sequences
        places = np.arange(first, first + self._sequences, dtype=np.int64)
        epoch, index = np.divmod(places, self.windows)
        window = permute(index, self.windows, self._seed, epoch)
        starts = window * self._length
        if self._whole is not None:
            document, nth, slack = self._whole.find(window)
            offset = draw(slack, self._seed, epoch, document)
            starts = self._offsets[document] + offset + nth * self._length
        places = starts[:, None] + np.arange(self._length + 1)
        return self._stream[places].astype(np.int64)
