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
    """Return the noise of one curve's runs, as `curve_rows` has them; None if nothing tells it.

    Runs of one size repeat each other where they were trained at one compute too.
    """
    n, losses = rows["parameters"].to_numpy(), rows["loss"].to_numpy()
    alike = [size_groups(n)[1], size_groups(n * rows["tokens"].to_numpy())[1]]
    by_seed = pd.Series(losses).groupby([*alike, rows["seed"].to_numpy()]).mean()
    wide = by_seed.unstack().to_numpy()
    there = np.isfinite(wide)
    repeated = there.sum(axis=1) >= 2
    if not repeated.any():
        if len(np.unique(n)) < PARABOLA_SIZES:
            return None
        curve = fit_parabola(n, losses)
        free = curve.degrees_of_freedom
        if free < SCATTER_FREEDOM:
            return None
        return RunNoise(source="scatter", run_spread=curve.spread, run_freedom=free)
    wide, there = wide[repeated], there[repeated]
    most = there[int(there.sum(axis=1).argmax())]
    block = wide[there[:, most].all(axis=1)][:, most]
    sizes, seeds = block.shape
    if sizes < 2:
        squares = (wide - np.nanmean(wide, axis=1, keepdims=True)) ** 2
        free = int(there.sum()) - len(there)
        pooled = math.sqrt(float(np.nansum(squares)) / free)
        return RunNoise(source="seeds", run_spread=pooled, run_freedom=free)
    # Two-way layout: sizes are fixed, seeds random (Searle, Variance Components, chapter 4).
    deviations = block - block.mean(axis=1, keepdims=True)
    of_seed = deviations.mean(axis=0)
    free = (sizes - 1) * (seeds - 1)
    own = float(((deviations - of_seed) ** 2).sum()) / free
    between = sizes * float((of_seed**2).sum()) / (seeds - 1)
    return RunNoise(
        source="seeds",
        run_spread=math.sqrt(own),
        run_freedom=free,
        seed_spread=math.sqrt(max(0.0, (between - own) / sizes)),
        seed_freedom=seeds - 1,
        shared_sizes=sizes,
    )
