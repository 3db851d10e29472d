"""Which runs of a curve are of one size: those whose parameters agree but for a few percent.

Axes: P runs, S sizes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.fit.intervals import Floats

SAME_SIZE = 0.05
"""Sizes within this of the smallest of their group, in log, are one. Ladders have factors of 1.2
(0.18) and more. A valley's loss changes by some 1e-4 over so little, less than runs scatter, so
that of two such sizes an interpolation would follow the scatter alone, as steeply as they are
close."""


def size_groups(parameters: ArrayLike) -> tuple[Floats, NDArray[np.intp]]:
    """Return the sizes (S,) of runs (P,), ascending, and the index of each run's size (P,).

    Walking up, a size takes in what lies within `SAME_SIZE` of its smallest member. It is the
    geometric mean of its runs.
    """
    n = np.asarray(parameters, dtype=np.float64)
    distinct = np.unique(n)
    smallest: list[float] = []
    for one in distinct.tolist():
        if not smallest or one >= smallest[-1] * math.exp(SAME_SIZE):
            smallest.append(one)
    of_run = np.searchsorted(smallest, n, side="right") - 1
    sizes = np.exp(np.bincount(of_run, weights=np.log(n)) / np.bincount(of_run))
    # A size of its own keeps all its digits.
    alone = np.bincount(np.searchsorted(smallest, distinct, side="right") - 1) == 1
    return np.where(alone, smallest, sizes), np.asarray(of_run, dtype=np.intp)


def size_means(parameters: ArrayLike, values: ArrayLike) -> tuple[Floats, Floats]:
    """Return the sizes (S,) of `size_groups`, and means (..., S) of values (..., P) over each."""
    sizes, of_run = size_groups(parameters)
    order, counts = np.argsort(of_run, kind="stable"), np.bincount(of_run)
    ordered = np.asarray(values, dtype=np.float64)[..., order]
    return sizes, np.add.reduceat(ordered, np.cumsum(counts) - counts, axis=-1) / counts
