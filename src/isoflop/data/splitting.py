"""Decides which documents are for training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = range(3)
DIGEST_BYTES = 16


def digest(text: bytes) -> bytes:
    """Return the 16 bytes that stand for the content of a document."""
    return hashlib.blake2b(text, digest_size=DIGEST_BYTES).digest()


def assign(
    digests: bytes | bytearray,
    sizes: Sequence[int],
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
) -> NDArray[np.uint8]:
    """Assign each document to a split by a hash of `seed` and its content.

    The fractions are of bytes, as nearly as whole documents allow. Documents are taken in the
    order of their hashes, so neither their names nor their order matter, and copies of a document
    share a split: no test document was seen in training. Every split gets at least one document.

    Args:
        digests: the `digest` of each document, one after the other.
        sizes: bytes of each document.
        validation_fraction: of all bytes.
        test_fraction: of all bytes.
        seed: of the hash.

    Returns:
        TRAIN, VALIDATION or TEST for each document, (documents,).

    Raises:
        ValueError: fewer than three distinct documents.
    """
    # Arrays throughout: there may be tens of millions of documents.
    halves = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
    by_digest = np.lexsort(halves.T)
    is_first = np.ones(len(halves), dtype=np.bool_)
    is_first[1:] = (halves[by_digest[1:]] != halves[by_digest[:-1]]).any(1)
    distinct = by_digest[is_first]
    if len(distinct) < 3:
        raise ValueError(
            f"the corpus has {len(distinct)} distinct documents; expected at least 3, "
            "one each for training, validation and test"
        )
    name = np.empty(len(halves), dtype=np.int64)
    name[by_digest] = np.cumsum(is_first) - 1
    bytes_of = np.bincount(name, np.asarray(sizes)).astype(np.int64)
    order = np.lexsort(_keyed(digests, distinct, seed).T[::-1])
    total = int(bytes_of.sum())
    test = _take(order, bytes_of, test_fraction * total, leave=2)
    order = order[~np.isin(order, test)]
    validation = _take(order, bytes_of, validation_fraction * total, leave=1)
    split_of = np.full(len(distinct), TRAIN, dtype=np.uint8)
    split_of[test], split_of[validation] = TEST, VALIDATION
    return split_of[name]


def _keyed(
    digests: bytes | bytearray, documents: NDArray[np.int64], seed: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the hash of `seed` and each digest as two numbers, the more significant first."""
    key = seed.to_bytes(16, "little")
    keyed = bytearray()
    for start in documents * DIGEST_BYTES:
        one = digests[start : start + DIGEST_BYTES]
        keyed += hashlib.blake2b(one, key=key, digest_size=16).digest()
    return np.frombuffer(keyed, dtype=">u8").astype("<u8").reshape(-1, 2)


def _take(
    order: NDArray[np.int64], bytes_of: NDArray[np.int64], quota: float, leave: int
) -> list[int]:
    """Take documents in `order` up to about `quota` bytes, leaving at least `leave` of them.

    One that would overshoot by more than it undershoots is passed over while less than half of
    the quota is filled, so that a single huge document does not become the held-out split.
    """
    taken: list[int] = []
    amount = 0
    for one in order:
        if len(taken) == len(order) - leave:
            break
        size = int(bytes_of[one])
        if amount + size / 2 <= quota:
            taken.append(int(one))
            amount += size
        elif amount >= quota / 2:
            break
    return taken or [int(order[bytes_of[order].argmin()])]
