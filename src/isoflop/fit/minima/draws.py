"""How far the runs of a curve scatter about it, and what that does to its minimum.

What two runs of one size differ by has a part that all runs of a seed share (its data order) and
a part of each run's own. Parametric bootstrap: that noise is added to the curve, which is fitted
again.

Both parts of the noise are drawn, and so is the knowledge of them: a spread that rests on two
degrees of freedom is itself uncertain, and intervals are wider for it, as Student's are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats, two_way
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.parabola import PARABOLA_SIZES, fit_parabola
from isoflop.fit.minima.sizes import size_groups, size_means
from isoflop.fit.settings import Estimator, FitSettings

SCATTER_FREEDOM = 3
"""Fewest degrees of freedom that a spread about a parabola may rest on: of one or two, nothing
can be said."""
LARGEST_ARRAY = 1_000_000
"""Numbers in one array (copies, runs); more copies go in several batches."""


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
    _, of_seed, own = two_way(block)
    return RunNoise(
        source="seeds",
        run_spread=math.sqrt(own),
        run_freedom=(sizes - 1) * (seeds - 1),
        seed_spread=math.sqrt(max(0.0, of_seed)),
        seed_freedom=seeds - 1,
        shared_sizes=sizes,
    )


class CurveDraws:
    """The noise of each curve of a table, and its noisy minima: drawn once for all who ask.

    Args:
        table: as `frame` or `run_table` makes it.
        settings: how many copies of a curve, and their seed. Each curve has draws of its own, the
            same ones for every estimator.
        about_surfaces: noise of a variant's runs about their surface, for curves whose own runs
            do not tell it.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        settings: FitSettings,
        about_surfaces: Mapping[str, RunNoise | None] | None = None,
    ) -> None:
        self.table, self.settings, about = table, settings, about_surfaces or {}
        own = table[(table["state"] == "finished") & table["on_ladder"]]
        curves = own[["variant", "budget_flops"]].dropna().drop_duplicates()
        self.rows = {
            key: own[(own["variant"] == key[0]) & (own["budget_flops"] == key[1])]
            for key in curves.itertuples(index=False, name=None)
        }
        """Finished runs of each curve, by variant and budget."""
        told = {key: run_noise(rows) or about.get(key[0]) for key, rows in self.rows.items()}
        self.noises = {key: noise for key, noise in told.items() if noise is not None}
        """How far they scatter, where something tells it."""
        self._minima: dict[tuple[str, float, Estimator], tuple[Floats, Floats]] = {}

    def minima(
        self, variant: str, budget_flops: float, estimator: Estimator = "parabola"
    ) -> tuple[Floats, Floats] | None:
        """Return log size and loss at the minima of noisy copies of a curve, (resamples,) each.

        As `CurveEstimator.find_in_copies` tells them; None where nothing tells the noise.
        """
        key = (variant, budget_flops)
        if key in self.noises and (*key, estimator) not in self._minima:
            found = self._of_copies(key, CURVE_ESTIMATORS[estimator].find_in_copies)
            self._minima[*key, estimator] = found
        return self._minima.get((*key, estimator))

    def size_losses(self, variant: str, budget_flops: float) -> tuple[Floats, Floats] | None:
        """Return the sizes (S,), ascending, and noisy mean losses of each (R, S).

        The noise is that behind `minima`; None where nothing tells it.
        """
        key = (variant, budget_flops)
        if key not in self.noises:
            return None
        return size_groups(self.rows[key]["parameters"])[0], self._of_copies(key, size_means)[1]

    def _of_copies(
        self,
        key: tuple[str, float],
        find: Callable[[Floats, Floats], tuple[Floats, Floats]],
    ) -> tuple[Floats, Floats]:
        """Return what is found in noisy copies, a few at a time so that no array gets large."""
        rows, copies = self.rows[key], self.settings.resamples
        own = zlib.crc32(f"{key[0]} at {key[1]!r}".encode())
        generator = np.random.default_rng((self.settings.seed, own))
        step = max(1, LARGEST_ARRAY // len(rows))
        n = rows["parameters"].to_numpy()
        parts = [
            find(n, noisy_losses(rows, self.noises[key], min(step, copies - at), generator))
            for at in range(0, copies, step)
        ]
        first, second = zip(*parts, strict=True)
        return np.concatenate(first), np.concatenate(second)


def noisy_losses(
    rows: pd.DataFrame, noise: RunNoise, copies: int, generator: np.random.Generator
) -> Floats:
    """Return noisy copies (copies, runs) of one curve's losses, about the mean of each size."""
    of_run = size_groups(rows["parameters"])[1]
    centre = rows["loss"].groupby(of_run).transform("mean").to_numpy()
    seeds = np.unique(rows["seed"].to_numpy(), return_inverse=True)[1]
    shared, own = _drawn_spreads(noise, copies, generator)
    each = own[:, None] * generator.standard_normal((copies, len(rows)))
    of_seed = shared[:, None] * generator.standard_normal((copies, int(seeds.max()) + 1))
    return np.asarray(centre + each + of_seed[:, seeds])


def _drawn_spreads(
    noise: RunNoise, copies: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return shared and own spreads (copies,) that the measured ones might have come from."""
    own = noise.run_spread**2 * noise.run_freedom / generator.chisquare(noise.run_freedom, copies)
    if not noise.seed_freedom:
        return np.zeros(copies), np.sqrt(own)
    between = noise.run_spread**2 + noise.shared_sizes * noise.seed_spread**2
    drawn = between * noise.seed_freedom / generator.chisquare(noise.seed_freedom, copies)
    return np.sqrt(np.maximum(0.0, drawn - own) / noise.shared_sizes), np.sqrt(own)
