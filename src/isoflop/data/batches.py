"""Training batches as a function of (seed, step): no state to save, none to lose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Windows
from isoflop.data.permutation import draw, permute
from isoflop.data.store import TokenSplit
from isoflop.data.windows import WholeWindows


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
