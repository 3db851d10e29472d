"""Parametric bootstrap of minima: measured noise is added to the curve, and it is fitted again.

What two runs of one size differ by has a part that all runs of a seed share (its data order) and
a part of each run's own. Both are drawn, and so is the knowledge of them: a spread that rests on
two degrees of freedom is itself uncertain, and intervals are wider for it, as Student's are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import Akima1DInterpolator

from isoflop.config import Frozen
from isoflop.fit.frame import curve_rows
from isoflop.fit.minimum import (
    AKIMA_SIZES,
    PARABOLA_SIZES,
    Floats,
    fit_parabola,
    in_window,
    losses_within,
)
from isoflop.fit.resampling import RESAMPLES
from isoflop.fit.sizes import size_groups

CurveEstimator = Literal["parabola", "akima"]
"""Estimators that look at one budget only."""

LARGEST_ARRAY = 1_000_000
"""Numbers in one array (copies, runs); more copies go in several batches."""

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


def run_noise(table: pd.DataFrame, variant: str, budget_flops: float) -> RunNoise | None:
    """Return the noise of a variant's runs at a budget, None where nothing tells it."""
    rows = curve_rows(table, variant, budget_flops)
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


class CurveDraws:
    """The noise of each curve of a table, and its noisy minima: drawn once for all who ask.

    Args:
        table: as `frame` or `run_table` makes it.
        resamples: how many copies of a curve.
        seed: of the draws. Each curve has draws of its own, the same ones for every estimator.
        about_surfaces: noise of a variant's runs about their surface, for curves whose own runs
            do not tell it.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
        about_surfaces: Mapping[str, RunNoise] | None = None,
    ) -> None:
        self.table, self.resamples, self.seed = table, resamples, seed
        self._about_surfaces = about_surfaces or {}
        self._rows: dict[tuple[str, float], pd.DataFrame] = {}
        self._noises: dict[tuple[str, float], RunNoise | None] = {}
        self._minima: dict[tuple[str, float, CurveEstimator], tuple[Floats, Floats]] = {}

    def rows(self, variant: str, budget_flops: float) -> pd.DataFrame:
        """Return what `curve_rows` does."""
        key = (variant, budget_flops)
        if key not in self._rows:
            self._rows[key] = curve_rows(self.table, variant, budget_flops)
        return self._rows[key]

    def noise(self, variant: str, budget_flops: float) -> RunNoise | None:
        """Return the noise of a variant's runs at a budget, None where nothing tells it."""
        key = (variant, budget_flops)
        if key not in self._noises:
            noise = run_noise(self.table, variant, budget_flops)
            if noise is None and len(self.rows(variant, budget_flops)):
                noise = self._about_surfaces.get(variant)
            self._noises[key] = noise
        return self._noises[key]

    def minima(
        self, variant: str, budget_flops: float, estimator: CurveEstimator = "parabola"
    ) -> tuple[Floats, Floats] | None:
        """Return what `minimum_draws` does, None where nothing tells the noise."""
        noise = self.noise(variant, budget_flops)
        if noise is None:
            return None
        key = (variant, budget_flops, estimator)
        if key not in self._minima:
            self._minima[key] = minimum_draws(
                self.table,
                variant,
                budget_flops,
                estimator,
                noise,
                resamples=self.resamples,
                seed=self._seed(variant, budget_flops),
            )
        return self._minima[key]

    def size_losses(self, variant: str, budget_flops: float) -> tuple[Floats, Floats] | None:
        """Return the sizes (S,), ascending, and noisy mean losses of each (R, S).

        The noise is that behind `minima`; None where nothing tells it.
        """
        noise = self.noise(variant, budget_flops)
        if noise is None:
            return None
        rows = self.rows(variant, budget_flops)
        parts = []
        for losses in _batches(rows, noise, self.resamples, self._seed(variant, budget_flops)):
            sizes, _, means = _means(rows["parameters"].to_numpy(), losses)
            parts.append(means)
        return sizes, np.concatenate(parts)

    def _seed(self, variant: str, budget_flops: float) -> tuple[int, int]:
        return self.seed, zlib.crc32(f"{variant} at {budget_flops!r}".encode())


def minimum_draws(
    table: pd.DataFrame,
    variant: str,
    budget_flops: float,
    estimator: CurveEstimator,
    noise: RunNoise,
    *,
    resamples: int = RESAMPLES,
    seed: int | tuple[int, ...] = 0,
) -> tuple[Floats, Floats]:
    """Return log size and loss at the minima of noisy copies of a variant's curve at a budget.

    Both have shape (resamples,). Where a copy's minimum is refused its loss is NaN. Its size is
    that of the end where it lies, or else NaN: to leave such copies out would cut off a tail.

    Args:
        table: as `frame` or `run_table` makes it.
        variant: whose curve.
        budget_flops: at which budget.
        estimator: of the minimum.
        noise: what to add, as `run_noise` measures it.
        resamples: how many copies.
        seed: of the draws.
    """
    rows = curve_rows(table, variant, budget_flops)
    sizes = rows["parameters"].to_numpy()
    minima_of = _parabola_minima if estimator == "parabola" else _akima_minima
    parts = [minima_of(sizes, losses) for losses in _batches(rows, noise, resamples, seed)]
    log_sizes, losses = (np.concatenate(column) for column in zip(*parts, strict=True))
    return log_sizes, losses


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


def _batches(
    rows: pd.DataFrame, noise: RunNoise, copies: int, seed: int | tuple[int, ...]
) -> Iterator[Floats]:
    """Yield `noisy_losses` a few copies at a time, so that no array gets large."""
    generator = np.random.default_rng(seed)
    step = max(1, LARGEST_ARRAY // len(rows))
    for at in range(0, copies, step):
        yield noisy_losses(rows, noise, min(step, copies - at), generator)


def _parabola_minima(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return what `parabola` says of each row of `losses` (R, P), as `minimum_draws` does."""
    sizes, inverse, means = _means(parameters, losses)
    best = means.argmin(axis=1)
    heights = np.full(len(losses), math.nan)
    if len(sizes) < PARABOLA_SIZES:
        return heights, heights
    log_sizes = _ends(sizes, best)
    # Copies with the same lowest size are fitted to the same runs.
    for lowest in np.unique(best[(best > 0) & (best < len(sizes) - 1)]).tolist():
        copies = np.flatnonzero(best == lowest)
        kept = in_window(sizes, lowest)[inverse]
        x = np.log(parameters[kept])
        centre, scale = x.mean(), float(np.ptp(x))
        x = (x - centre) / scale
        solve = np.linalg.pinv(np.stack([np.ones_like(x), x, x**2], axis=1))
        height, slope, curvature = solve @ losses[np.ix_(copies, kept)].T
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex = -slope / (2 * curvature)
        valley = curvature > 0
        good = valley & (x.min() < vertex) & (vertex < x.max())
        log_sizes[copies[valley]] = centre + scale * vertex[valley].clip(x.min(), x.max())
        heights[copies[good]] = (height + slope * vertex / 2)[good]
    return log_sizes, _within(heights, means)


def _akima_minima(parameters: Floats, losses: Floats) -> tuple[Floats, Floats]:
    """Return what `akima` says of each row of `losses` (R, P), as `minimum_draws` does."""
    sizes, _, means = _means(parameters, losses)
    none = np.full(len(losses), math.nan)
    if len(sizes) < AKIMA_SIZES:
        return none, none
    # A copy may fall below zero where losses are small against their noise.
    x, y = np.log(sizes), np.log(np.maximum(means, 1e-12 * means.max())).T
    curve = Akima1DInterpolator(x, y)
    cubic, square, slope, start = curve.c
    # Where the slope of each piece is zero, if that is within the piece; and the points.
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(square**2 - 3 * cubic * slope)
        # Written so that a piece of hardly any third power loses no digits.
        outer = -(square + np.copysign(root, square))
        offsets = np.stack([np.zeros_like(start), outer / (3 * cubic), slope / outer])
    width = np.diff(x)[:, None]
    offsets = np.where((offsets >= 0) & (offsets <= width), offsets, 0.0)
    heights = ((cubic * offsets + square) * offsets + slope) * offsets + start
    places = (x[:-1, None] + offsets).reshape(-1, len(losses))
    flat = heights.reshape(-1, len(losses))
    best, copies = flat.argmin(axis=0), np.arange(len(losses))
    lowest = means.argmin(axis=1)
    good = (lowest > 0) & (lowest < len(sizes) - 1)
    return (
        np.where(good, places[best, copies], _ends(sizes, lowest)),
        _within(np.where(good, np.exp(flat[best, copies]), math.nan), means),
    )


def _within(losses: Floats, means: Floats) -> Floats:
    """Return the minima of copies (R,), NaN where far outside the copy's losses (R, S)."""
    low, high = losses_within(means)
    return np.where((low <= losses) & (losses <= high), losses, math.nan)


def _ends(sizes: Floats, best: NDArray[np.intp]) -> Floats:
    """Return the log size of copies (R,) whose lowest size is the first or the last, else NaN."""
    ends = np.full(len(best), math.nan)
    for end in (0, len(sizes) - 1):
        ends[best == end] = math.log(sizes[end])
    return ends


def _means(parameters: Floats, losses: Floats) -> tuple[Floats, NDArray[np.intp], Floats]:
    """Return the sizes (S), which one each run has (P), and mean losses (R, S)."""
    sizes, inverse = size_groups(parameters)
    counts = np.bincount(inverse)
    grouped = losses[:, np.argsort(inverse, kind="stable")]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    return sizes, inverse, np.add.reduceat(grouped, first, axis=1) / counts


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
