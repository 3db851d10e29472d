"""Training batches as a function of (seed, step): no state to save, none to lose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Windows
from isoflop.data.permutation import draw, permute
from isoflop.data.store import TokenSplit
from isoflop.data.windows import whole_windows


class Batches:
    """Batches of windows of a split.

    A window predicts T tokens from the ones before them. An epoch goes through all windows in an
    order keyed by (seed, epoch); what is left of an epoch begins the next batch, so no window is
    dropped.

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
        self._tokens = np.asarray(split.tokens)
        self._columns = np.arange(sequence_length + 1)
        self._sequences = sequences_per_step
        self._seed = seed
        self._cut: _StreamWindows | _DocumentWindows
        if windows == "stream":
            self._cut = _StreamWindows(split, sequence_length)
        else:
            self._cut = _DocumentWindows(split, sequence_length, seed)
        self.windows = self._cut.count
        """Windows in an epoch."""

    def epochs(self, steps: int) -> float:
        """Return how often `steps` steps go through the windows."""
        return steps * self._sequences / self.windows

    def batch(self, step: int, rank: int = 0, world: int = 1) -> NDArray[np.int64]:
        """Return tokens (B / world, T + 1); inputs are [:, :-1], targets [:, 1:].

        The batches of all ranks, one below the other, are the batch of a single process.

        Raises:
            ValueError: `world` does not divide B.
        """
        if self._sequences % world:
            raise ValueError(
                f"{world} ranks share {self._sequences} sequences per step; "
                "expected a number of ranks that divides it"
            )
        share = self._sequences // world
        first = step * self._sequences + rank * share
        epoch, index = np.divmod(np.arange(first, first + share, dtype=np.int64), self.windows)
        starts = self._cut.starts(permute(index, self.windows, self._seed, epoch), epoch)
        windows: NDArray[np.int64] = self._tokens[starts[:, None] + self._columns].astype(np.int64)
        return windows


class _StreamWindows:
    """Windows one after the other: window i predicts tokens i*T+1 to i*T+T of the stream.

    They are the same in every epoch; the tail of the stream that fills no window is left out.
    """

    def __init__(self, split: TokenSplit, sequence_length: int) -> None:
        self._length = sequence_length
        self.count = (len(split.tokens) - 1) // sequence_length
        if self.count < 1:
            raise ValueError(
                f"sequence_length is {sequence_length}, but the split has {len(split.tokens)} "
                "tokens; expected more than one sequence: use a larger corpus or shorter sequences"
            )

    def starts(self, window: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each window (n,) begins in the stream."""
        return window * self._length


class _DocumentWindows:
    """Windows within documents, as many as each document holds whole.

    A document of L tokens, its end counted, holds n = (L-1) // T windows. The rest of it is slack:
    its windows follow each other from an offset drawn uniformly from 0 to L-1 - n*T, keyed by
    (seed, epoch, document), so that over epochs every token of it is seen.
    """

    def __init__(self, split: TokenSplit, sequence_length: int, seed: int) -> None:
        whole = whole_windows(split, sequence_length)
        lengths = np.diff(split.offsets)
        self._length = sequence_length
        self._seed = seed
        self._begins = split.offsets[:-1]
        self._slack = lengths - 1 - whole * sequence_length
        self._last = np.cumsum(whole)
        self._first = self._last - whole
        self.count = int(whole.sum())

    def starts(self, window: NDArray[np.int64], epoch: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where each window (n,) of its epoch (n,) begins in the stream."""
        document = np.searchsorted(self._last, window, side="right")
        offset = draw(self._slack[document], self._seed, epoch, document)
        within = (window - self._first[document]) * self._length
        starts: NDArray[np.int64] = self._begins[document] + offset + within
        return starts
