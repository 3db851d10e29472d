"""Windows that cover a split, or its documents, from their start, for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product

import numpy as np
from numpy.typing import NDArray

from isoflop.data.store import TokenSplit
from isoflop.data.tables import BLOCK, blocks

Batch = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Tokens (B, T + 1); the document of each target, (B, T), -1 where masked, the end of a document
counting to it; mask (B, T), True where there is a target."""


def evaluation_windows(
    split: TokenSplit,
    sequence_length: int,
    sequences: int,
    limit_tokens: int | None = None,
    *,
    spread: bool = False,
) -> Iterator[Batch]:
    """Yield batches of B windows of a split in order, each token but the first a target once.

    All batches have the same shape: the end is padded with id 0, masked out. Padding sits behind
    the last target, so no causal prediction sees it, but top-k selection over a sequence may.

    Args:
        split: the token stream.
        sequence_length: T.
        sequences: B.
        limit_tokens: so many targets, within a document if need be; None for all.
        spread: where the limit leaves text out, windows lie at even distances over all of the
            stream, whole ones if the limit pays for one; else they are those at its start.

    Raises:
        ValueError: the split has no target, or the limit is less than 1.
    """
    available = len(split.tokens) - 1
    targets = available if limit_tokens is None else min(available, limit_tokens)
    if targets < 1:
        raise ValueError(
            f"the split has {len(split.tokens)} tokens and the limit is {limit_tokens}; "
            "expected at least one token to predict"
        )
    windows, apart = -(-targets // sequence_length), 1.0
    if spread and targets < available:
        windows = max(1, targets // sequence_length)
        apart = max(1.0, available // sequence_length / windows)
    for first in range(0, windows, sequences):
        index = np.arange(first, min(first + sequences, windows))
        counts = np.minimum(targets - index * sequence_length, sequence_length)
        # In the middle of what each stands for.
        begin = ((index + 0.5) * apart).astype(np.int64) * sequence_length
        yield _batch(split, begin, counts, sequence_length, sequences)


def document_windows(
    split: TokenSplit,
    sequence_length: int,
    sequences: int,
    limit_tokens: int | None = None,
    *,
    spread: bool = False,
) -> Iterator[Batch]:
    """Yield windows that lie within one document each, every token of it but the first a target.

    Windows begin at 0, T, 2T, ... of a document; its last one may be shorter. They come in rounds,
    the first window of every document, then the second of those that have one, and so on, so that
    a limit is spread over documents. Arguments, shapes and padding are those of
    `evaluation_windows`, but that the limit stops before the first window that would exceed it;
    only where that is the very first window is it cut short, to the limit. Where the limit does not
    pay for a window of each document, `spread` takes every n-th of them first.

    Raises:
        ValueError: no document has a target, or the limit is less than 1.
    """
    longest = max((int(np.diff(part).max()) for _, part in blocks(split.offsets, 1)), default=0)
    if longest < 2 or (limit_tokens is not None and limit_tokens < 1):
        raise ValueError(
            f"the longest document has {longest} tokens and the limit is {limit_tokens}; expected "
            "at least one token to predict"
        )
    apart = 1
    if spread and limit_tokens is not None:
        apart = -(-split.documents // max(1, limit_tokens // sequence_length))
    places = _up_to(_rounds(split.offsets, longest, sequence_length, apart), limit_tokens)
    while part := list(islice(places, sequences)):
        begins, counts = np.array(part).T
        yield _batch(split, begins, counts, sequence_length, sequences)


def _rounds(
    offsets: NDArray[np.int64], longest: int, sequence_length: int, apart: int
) -> Iterator[tuple[int, int]]:
    """Yield where each window begins and how many targets it has, in rounds.

    In each the documents come `apart` first, then those beside them.
    """
    for turn, beside in product(range(0, longest - 1, sequence_length), range(apart)):
        for first, part in blocks(offsets, 1):
            left = np.diff(part) - 1 - turn
            here = (left > 0) & (np.arange(first, first + len(left)) % apart == beside)
            counts = np.minimum(left[here], sequence_length)
            yield from zip((part[:-1][here] + turn).tolist(), counts.tolist(), strict=True)


def _up_to(places: Iterator[tuple[int, int]], limit: int | None) -> Iterator[tuple[int, int]]:
    """Yield windows up to the first that would exceed the limit; a very first one is cut to it."""
    used = 0
    for begin, count in places:
        if limit is not None and used + count > limit:
            if not used:
                yield begin, limit
            return
        used += count
        yield begin, count


def _batch(
    split: TokenSplit,
    begins: NDArray[np.int64],
    targets: NDArray[np.int64],
    sequence_length: int,
    sequences: int,
) -> Batch:
    """Return windows that begin at tokens of the stream and have so many targets each."""
    position = np.arange(sequence_length + 1)
    missing = sequences - len(targets)
    begin, count = (np.pad(one, (0, missing))[:, None] for one in (begins, targets))
    place = np.where(position <= count, begin + position, 0)
    tokens = np.where(position <= count, split.stream[place], 0).astype(np.int64)
    mask = position[1:] <= count
    owner = np.searchsorted(split.offsets, place[:, 1:], side="right") - 1
    return tokens, np.where(mask, owner, -1).astype(np.int64), mask


_LOOKED_AT = 256
"""Documents whose windows are counted at once to find one of them."""


class WholeWindows:
    """Windows of T targets that lie one after the other in documents, numbered through.

    Kept are sums over blocks of documents; what lies in a block is counted when it is asked for.

    Raises:
        ValueError: no document holds one.
    """

    def __init__(self, split: TokenSplit, sequence_length: int) -> None:
        self._offsets, self._length = split.offsets, sequence_length
        sums, longest = [np.zeros(1, dtype=np.int64)], 0
        for _, part in blocks(split.offsets, 1, _LOOKED_AT * (BLOCK // _LOOKED_AT)):
            lengths = np.diff(part)
            longest = max(longest, int(lengths.max()))
            whole = (lengths - 1) // sequence_length
            sums.append(np.add.reduceat(whole, np.arange(0, len(whole), _LOOKED_AT)))
        self._before = np.cumsum(np.concatenate(sums))
        """Windows before each block, and all of them."""
        self.windows = int(self._before[-1])
        """How many there are."""
        if not self.windows:
            raise ValueError(
                f"windows are cut from documents and sequence_length is {sequence_length}, but the "
                f"longest document has {longest} tokens; expected one of more than "
                "sequence_length: use longer documents, shorter sequences or windows = 'stream'"
            )

    def find(
        self, windows: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return the document of each window, which of its windows it is, and its slack, (n,).

        The slack is the tokens that the windows of the document leave over.
        """
        block = np.searchsorted(self._before, windows, side="right") - 1
        first = block * _LOOKED_AT
        # (n, documents of a block); those beyond the last are empty.
        document = np.minimum(first[:, None] + np.arange(_LOOKED_AT + 1), len(self._offsets) - 1)
        lengths = np.diff(self._offsets[document], axis=1)
        whole = np.maximum(lengths - 1, 0) // self._length
        last = np.cumsum(whole, axis=1)
        nth = windows - self._before[block]
        within = (last <= nth[:, None]).sum(1)
        one = np.arange(len(windows)), within
        slack = lengths[one] - 1 - whole[one] * self._length
        return first + within, nth - (last - whole)[one], slack
