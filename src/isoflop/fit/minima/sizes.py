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


def checked_curve(parameters: ArrayLike, losses: ArrayLike) -> tuple[Floats, Floats]:
    """Return the parameters (P,) and the losses (..., P) of runs, sorted by parameters.

    Raises:
        ValueError: the lengths differ, or a value is not finite, or a size not positive.
    """
    n = np.asarray(parameters, dtype=np.float64)
    y = np.asarray(losses, dtype=np.float64)
    if n.ndim != 1 or n.shape != y.shape[-1:]:
        raise ValueError(
            f"parameters and losses have shapes {n.shape} and {y.shape}; expected one run each"
        )
    if not (np.isfinite(n).all() and np.isfinite(y).all() and (n > 0).all()):
        raise ValueError(
            "parameters and losses must be finite and parameters positive; "
            "leave diverged runs out before fitting"
        )
    order = np.argsort(n, kind="stable")
    return n[order], y[..., order]


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
    n, y = checked_curve(parameters, values)
    sizes, of_run = size_groups(n)
    counts = np.bincount(of_run)
    return sizes, np.add.reduceat(y, np.cumsum(counts) - counts, axis=-1) / counts
