"""Decides which documents are for training, validation and test."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from isoflop.data.pieces import Text, blocks

TRAIN, VALIDATION, TEST = range(3)
DIGEST_BYTES = 16
HELD = 1 << 20
"""Documents that are sorted in memory at a time, about."""


def digest(text: Text, *others: Any) -> bytes:
    """Return the 16 bytes that stand for the content of a document; `others` hash it as well."""
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for block in blocks(text):
        for one in (found, *others):
            one.update(block)
    return found.digest()


def assign(
    digests: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    splits: NDArray[np.uint8],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    scratch: Path | None = None,
) -> None:
    """Assign each document to a split by a hash of `seed` and its content.

    The fractions are of bytes, as nearly as whole documents allow. Documents are taken in the
    order of their hashes, so neither their names nor their order matter, and copies of a document
    share a split: no test document was seen in training. Every split gets at least one document.
    The arrays may be mapped from files: about HELD documents are held in memory at a time.

    Args:
        digests: the `digest` of each document, (documents, 16).
        sizes: bytes of each document, (documents,).
        splits: TRAIN for each document, (documents,); becomes its split.
        validation_fraction: of all bytes.
        test_fraction: of all bytes.
        seed: of the hash.
        scratch: folder for 16 bytes a document meanwhile; None for the system's.

    Raises:
        ValueError: fewer than three distinct documents.
    """
    with tempfile.TemporaryFile(dir=scratch) as file:
        order = _Order(_keyed(digests, seed, file), sizes)
        counts, amounts = zip(*((len(each), int(each.sum())) for *_, each in order), strict=True)
        distinct, total = sum(counts), sum(amounts)
        if distinct < 3:
            raise ValueError(
                f"the corpus has {distinct} distinct documents; expected at least 3, "
                "one each for training, validation and test"
            )
        taken = _take(order, splits, TEST, test_fraction * total, distinct - 2)
        _take(order, splits, VALIDATION, validation_fraction * total, distinct - taken - 1)


def _keyed(
    digests: NDArray[np.uint8], seed: int, file: IO[bytes]
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the hash of `seed` and each digest as two numbers, the more significant first.

    They lie in `file`, (documents, 2).
    """
    key = seed.to_bytes(16, "little")
    for first in range(0, len(digests), HELD):
        some = digests[first : first + HELD].tobytes()
        keyed = bytearray()
        for start in range(0, len(some), DIGEST_BYTES):
            one = some[start : start + DIGEST_BYTES]
            keyed += hashlib.blake2b(one, key=key, digest_size=16).digest()
        file.write(keyed)
    file.flush()
    return np.asarray(np.memmap(file, ">u8", "r", shape=(len(digests), 2)))


_Part = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Documents one after the other, copies side by side; where the copies of each distinct one begin,
and where the last ones end; bytes of all copies of each."""


class _Order:
    """The documents in the order of their keys, read anew each time."""

    def __init__(self, keys: NDArray[Any], sizes: NDArray[np.int64]) -> None:
        self._keys, self._sizes = keys, sizes

    def __iter__(self) -> Iterator[_Part]:
        width = (1 << 64) * HELD // len(self._keys) + 1
        for low in range(0, 1 << 64, width):
            first, last = np.uint64(low), np.uint64(min(low + width, 1 << 64) - 1)
            high = ((at, self._keys[at : at + HELD, 0]) for at in range(0, len(self._keys), HELD))
            documents = np.concatenate(
                [at + np.flatnonzero((some >= first) & (some <= last)) for at, some in high]
            )
            keys = self._keys[documents].astype("<u8")
            by_key = np.lexsort(keys.T[::-1])
            documents, keys = documents[by_key], keys[by_key]
            new = np.ones(len(keys), dtype=np.bool_)
            new[1:] = (keys[1:] != keys[:-1]).any(1)
            begins = np.flatnonzero(new)
            if len(begins):
                sizes = np.add.reduceat(self._sizes[documents], begins)
                yield documents, np.append(begins, len(documents)), sizes


def _take(order: _Order, splits: NDArray[np.uint8], split: int, quota: float, at_most: int) -> int:
    """Take documents of TRAIN in `order`, up to about `quota` bytes; returns how many.

    One that would overshoot by more than it undershoots is passed over while less than half of
    the quota is filled, so that a single huge document does not become the held-out split.
    """
    taken = amount = 0
    smallest, size_of_it = None, 0
    for documents, begins, sizes in order:
        free = np.flatnonzero(splits[documents[begins[:-1]]] == TRAIN)
        for one, size in zip(free.tolist(), sizes[free].tolist(), strict=True):
            mine = documents[begins[one] : begins[one + 1]]
            if amount + size / 2 <= quota and taken < at_most:
                splits[mine] = split
                taken, amount = taken + 1, amount + size
            elif taken and (amount >= quota / 2 or taken == at_most):
                return taken
            elif smallest is None or size < size_of_it:
                smallest, size_of_it = mine, size
    if not taken:
        assert smallest is not None, "there are at least as many as are left over"
        splits[smallest] = split
    return max(1, taken)
