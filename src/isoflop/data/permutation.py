"""A keyed permutation and keyed draws, computed where they are asked for and stored nowhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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
