"""Decides which documents are for training, validation and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TRAIN, VALIDATION, TEST = range(3)


def digest(text: bytes) -> bytes:
    """Return the 16 bytes that stand for the content of a document."""
    return hashlib.blake2b(text, digest_size=16).digest()


def assign(
    digests: Sequence[bytes],
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

    Returns:
        TRAIN, VALIDATION or TEST for each document, of which come `digest` and bytes.

    Raises:
        ValueError: fewer than three distinct documents.
    """
    bytes_of: Counter[bytes] = Counter()
    for name, size in zip(digests, sizes, strict=True):
        bytes_of[name] += size
    if len(bytes_of) < 3:
        raise ValueError(
            f"the corpus has {len(bytes_of)} distinct documents; expected at least 3, "
            "one each for training, validation and test"
        )
    key = seed.to_bytes(16, "little")
    order = sorted(
        bytes_of, key=lambda name: hashlib.blake2b(name, key=key, digest_size=16).digest()
    )
    total = sum(bytes_of.values())
    test = _take(order, bytes_of, test_fraction * total, leave=2)
    order = [name for name in order if name not in test]
    validation = _take(order, bytes_of, validation_fraction * total, leave=1)
    return np.array(
        [TEST if d in test else VALIDATION if d in validation else TRAIN for d in digests],
        dtype=np.uint8,
    )


def _take(order: list[bytes], bytes_of: dict[bytes, int], quota: float, leave: int) -> set[bytes]:
    """Take documents in `order` up to about `quota` bytes, leaving at least `leave` of them.

    One that would overshoot by more than it undershoots is passed over while less than half of
    the quota is filled, so that a single huge document does not become the held-out split.
    """
    taken: set[bytes] = set()
    amount = 0
    for name in order:
        if len(taken) == len(order) - leave:
            break
        if amount + bytes_of[name] / 2 <= quota:
            taken.add(name)
            amount += bytes_of[name]
        elif amount >= quota / 2:
            break
    return taken or {min(order, key=bytes_of.__getitem__)}
