"""Windows that cover a split, or its documents, from their start, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from isoflop.data.store import TokenSplit

Batch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Tokens (B, T + 1); the document of each target, (B, T), -1 where masked, the end of a document
counting to it; mask (B, T), True where there is a target."""


def evaluation_windows(
    split: TokenSplit, sequence_length: int, sequences: int, limit_tokens: int | None = None
) -> Iterator[Batch]:
    """Yield batches of B windows of a split in order, each token but the first a target once.

    All batches have the same shape: the end is padded with id 0, masked out. Padding sits behind
    the last target, so no causal prediction sees it, but top-k selection over a sequence may.

    Args:
        split: the token stream.
        sequence_length: T.
        sequences: B.
        limit_tokens: stop after so many targets, within a document if need be; None for all.

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
    begin = np.arange(0, targets, sequence_length)
    counts = np.minimum(targets - begin, sequence_length)
    yield from _batches(split, begin, counts, sequence_length, sequences)


def document_windows(
    split: TokenSplit, sequence_length: int, sequences: int, limit_tokens: int | None = None
) -> Iterator[Batch]:
    """Yield windows that lie within one document each, every token of it but the first a target.

    Windows begin at 0, T, 2T, ... of a document; its last one may be shorter. They come in rounds,
    the first window of every document, then the second of those that have one, and so on, so that
    a limit is spread over documents. Arguments, shapes and padding are those of
    `evaluation_windows`, but that the limit stops before the first window that would exceed it;
    only where that is the very first window is it cut short, to the limit.

    Raises:
        ValueError: no document has a target, or the limit is less than 1.
    """
    targets_of = np.diff(split.offsets) - 1
    windows_of = -(-targets_of // sequence_length)
    document = np.repeat(np.arange(split.documents), windows_of)
    turn = np.arange(len(document)) - np.repeat(np.cumsum(windows_of) - windows_of, windows_of)
    order = np.argsort(turn, kind="stable")
    document, begin = document[order], turn[order] * sequence_length
    targets = np.minimum(targets_of[document] - begin, sequence_length)
    if limit_tokens is not None:
        targets[:1] = np.minimum(targets[:1], limit_tokens)
        targets = targets[: np.searchsorted(np.cumsum(targets), limit_tokens, side="right")]
    if targets.sum() < 1:
        raise ValueError(
            f"the longest document has {targets_of.max(initial=-1) + 1} tokens and the limit is "
            f"{limit_tokens}; expected at least one token to predict"
        )
    yield from _batches(split, split.offsets[document] + begin, targets, sequence_length, sequences)


def _batches(
    split: TokenSplit,
    begins: NDArray[np.int64],
    targets: NDArray[np.int64],
    sequence_length: int,
    sequences: int,
) -> Iterator[Batch]:
    """Yield windows that begin at tokens of the stream and have so many targets each."""
    position = np.arange(sequence_length + 1)
    stream = split.stream
    missing = -len(targets) % sequences
    begins, counts = (np.pad(one[: len(targets)], (0, missing)) for one in (begins, targets))
    for first in range(0, len(targets), sequences):
        begin = begins[first : first + sequences, None]
        count = counts[first : first + sequences, None]
        place = np.where(position <= count, begin + position, 0)
        tokens = np.where(position <= count, stream[place], 0).astype(np.int64)
        mask = position[1:] <= count
        owner = np.searchsorted(split.offsets, place[:, 1:], side="right") - 1
        yield tokens, np.where(mask, owner, -1).astype(np.int64), mask


def whole_windows(split: TokenSplit, sequence_length: int) -> NDArray[np.int64]:
    """Return how many windows of T targets lie one after the other in each document, (documents,).

    Raises:
        ValueError: not one does.
    """
    lengths = np.diff(split.offsets)
    whole: NDArray[np.int64] = (lengths - 1) // sequence_length
    if not whole.any():
        raise ValueError(
            f"windows are cut from documents and sequence_length is {sequence_length}, but the "
            f"longest document has {lengths.max(initial=0)} tokens; expected one of more than "
            "sequence_length: use longer documents, shorter sequences or windows = 'stream'"
        )
    return whole
