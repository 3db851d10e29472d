"""How far the runs of a curve scatter about it.

What two runs of one size differ by has a part that all runs of a seed share (its data order) and
a part of each run's own.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.parabola import PARABOLA_SIZES, fit_parabola
from isoflop.fit.minima.sizes import size_groups

SCATTER_FREEDOM = 3
"""Fewest degrees of freedom that a spread about a parabola may rest on: of one or two, nothing
can be said."""


class RunNoise(Frozen):
    """How far runs scatter about their curve, nats per token."""

    source: Literal["seeds", "scatter", "surface"]
    """Measured between seeds of one size, or, without replicates, about the parabola, or, where
    that leaves too little over, about the surface through the runs of all budgets."""
    run_spread: float
    """Standard deviation of a run's own part."""
    run_freedom: int
    seed_spread: float = 0.0
    """Standard deviation of the part that all runs of one seed share."""
    seed_freedom: int = 0
    """Seeds in common to two or more sizes, less one; 0 where the parts cannot be told apart."""
    shared_sizes: int = 0
    """Sizes that all of these seeds were trained at."""


def run_noise(rows: pd.DataFrame) -> RunNoise | None:
    """Return the noise of one curve's runs, as `curve_rows` has them; None if nothing tells it."""
    if rows.empty:
        return None
    wide = _losses_by_seed(rows)
    there = np.isfinite(wide)
    repeated = there.sum(axis=1) >= 2
    if not repeated.any():
        return _scatter(rows)
    wide, there = wide[repeated], there[repeated]
    squares = (wide - np.nanmean(wide, axis=1, keepdims=True)) ** 2
    freedom = int(there.sum()) - len(there)
    pooled = math.sqrt(float(np.nansum(squares)) / freedom)
    most = there[int(there.sum(axis=1).argmax())]
    block = wide[there[:, most].all(axis=1)][:, most]
    sizes, seeds = block.shape
    if sizes < 2:
        return RunNoise(source="seeds", run_spread=pooled, run_freedom=freedom)
    # Two-way layout: sizes are fixed, seeds random (Searle, Variance Components, chapter 4).
    deviations = block - block.mean(axis=1, keepdims=True)
    of_seed = deviations.mean(axis=0)
    own = float(((deviations - of_seed) ** 2).sum()) / ((sizes - 1) * (seeds - 1))
    between = sizes * float((of_seed**2).sum()) / (seeds - 1)
    return RunNoise(
        source="seeds",
        run_spread=math.sqrt(own),
        run_freedom=(sizes - 1) * (seeds - 1),
        seed_spread=math.sqrt(max(0.0, (between - own) / sizes)),
        seed_freedom=seeds - 1,
        shared_sizes=sizes,
    )


def _losses_by_seed(rows: pd.DataFrame) -> Floats:
    """Return the mean loss of what repeats each other, by seed: (size and compute, seed), or NaN.

    Runs of one size repeat each other where they were trained at one compute too.
    """
    n, seeds = rows["parameters"].to_numpy(), rows["seed"].to_numpy()
    of_size = size_groups(n)[1]
    of_compute = size_groups(n * rows["tokens"].to_numpy())[1]
    # Each pair as one number, so that they are counted as bins.
    pairs, of_pair = np.unique(of_size * len(n) + of_compute, return_inverse=True)
    columns, of_seed = np.unique(seeds, return_inverse=True)
    shape = len(pairs), len(columns)
    cell = np.ravel_multi_index((of_pair, of_seed), shape)
    sums, counts = (
        np.bincount(cell, weights, len(pairs) * len(columns)).reshape(shape)
        for weights in (rows["loss"].to_numpy(), None)
    )
    means = np.full(shape, math.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _scatter(rows: pd.DataFrame) -> RunNoise | None:
    sizes, losses = rows["parameters"].to_numpy(), rows["loss"].to_numpy()
    if len(np.unique(sizes)) < PARABOLA_SIZES:
        return None
    curve = fit_parabola(sizes, losses)
    kept = (sizes >= curve.smallest) & (sizes <= curve.largest)
    if curve.degrees_of_freedom < SCATTER_FREEDOM:
        return None
    squares = float(np.sum((losses[kept] - curve.loss_at(sizes[kept])) ** 2))
    return RunNoise(
        source="scatter",
        run_spread=math.sqrt(squares / curve.degrees_of_freedom),
        run_freedom=curve.degrees_of_freedom,
    )
