"""Training batches as a function of (seed, step): no state to save, none to lose."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.data.permutation import permute
from isoflop.data.store import TokenSplit


class Batches:
    """Batches of windows of a split.

    Window i predicts tokens i*T+1 to i*T+T from the ones before them. An epoch goes through all
    windows in an order keyed by (seed, epoch); what is left of an epoch begins the next batch, so
    nothing is dropped but the tail of the split that fills no window.

    Args:
        split: the token stream.
        sequence_length: T.
        sequences_per_step: B, over all ranks.
        seed: decides the order.

    Raises:
        ValueError: the split is shorter than one window.
    """

    def __init__(
        self, split: TokenSplit, sequence_length: int, sequences_per_step: int, seed: int
    ) -> None:
        self._tokens = np.asarray(split.tokens)
        self._columns = np.arange(sequence_length + 1)
        self._sequences = sequences_per_step
        self._seed = seed
        self.windows = (len(self._tokens) - 1) // sequence_length
        """Windows in an epoch."""
        if self.windows < 1:
            raise ValueError(
                f"sequence_length is {sequence_length}, but the split has {len(self._tokens)} "
                "tokens; expected more than one sequence: use a larger corpus or shorter sequences"
            )

    def epochs(self, steps: int) -> float:
        """Return how often `steps` steps go through the split."""
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
        window = permute(index, self.windows, self._seed, epoch)
        starts = window * (len(self._columns) - 1)
        windows: NDArray[np.int64] = self._tokens[starts[:, None] + self._columns].astype(np.int64)
        return windows
