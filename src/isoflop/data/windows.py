"""Windows that cover a split from its start, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isoflop.data.store import TokenSplit


def evaluation_windows(
    split: TokenSplit, sequence_length: int, sequences: int, limit_tokens: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield the windows of a split in order, each token but the first a target exactly once.

    All batches have the same shape: the end is padded with id 0, masked out. Padding sits behind
    the last target, so no causal prediction sees it, but top-k selection over a sequence may.

    Args:
        split: the token stream.
        sequence_length: T.
        sequences: B, windows in each batch.
        limit_tokens: stop after so many targets, within a document if need be; None for all.

    Yields:
        tokens (B, T + 1); the document of each target, (B, T), -1 where masked, the end of a
        document counting to it; mask (B, T), True where there is a target.

    Raises:
        ValueError: the split has no target, or the limit is less than 1.
    """
    targets = len(split.tokens) - 1
    if limit_tokens is not None:
        targets = min(targets, limit_tokens)
    if targets < 1:
        raise ValueError(
            f"the split has {len(split.tokens)} tokens and the limit is {limit_tokens}; "
            "expected at least one token to predict"
        )
    width = sequences * sequence_length
    for start in range(0, targets, width):
        count = min(width, targets - start)
        stream = np.zeros(width + 1, dtype=np.int64)
        stream[: count + 1] = split.tokens[start : start + count + 1]
        rows = np.arange(sequences)[:, None] * sequence_length
        position = np.arange(width).reshape(sequences, sequence_length)
        mask = position < count
        document = np.searchsorted(split.offsets, start + 1 + position, side="right") - 1
        yield (
            stream[rows + np.arange(sequence_length + 1)],
            np.where(mask, document, -1).astype(np.int64),
            mask,
        )
