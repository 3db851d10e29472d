"""Parametric bootstrap of minima: measured noise is added to the curve, and it is fitted again.

What two runs of one size differ by has a part that all runs of a seed share (its data order) and
a part of each run's own. Both are drawn, and so is the knowledge of them: a spread that rests on
two degrees of freedom is itself uncertain, and intervals are wider for it, as Student's are.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.frame import curve_rows
from isoflop.fit.minimum import PARABOLA_SIZES, Floats, Minimum, akima, fit_parabola, parabola
from isoflop.fit.resampling import RESAMPLES

SCATTER_FREEDOM = 3
"""Fewest degrees of freedom that a spread about a parabola may rest on: of one or two, nothing
can be said."""


class RunNoise(Frozen):
    """How far runs scatter about their curve, nats per token."""

    source: Literal["seeds", "scatter"]
    """Measured between seeds of one size, or, without replicates, about the parabola."""
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
    wide = rows.pivot_table(index=["parameters", "tokens"], columns="seed", values="loss")
    repeated = wide[wide.notna().sum(axis=1) >= 2]
    if repeated.empty:
        return _scatter(rows)
    squares = repeated.sub(repeated.mean(axis=1), axis=0) ** 2
    freedom = int((repeated.notna().sum(axis=1) - 1).sum())
    pooled = math.sqrt(float(np.nansum(squares.to_numpy())) / freedom)
    fullest = int(repeated.notna().sum(axis=1).to_numpy().argmax())
    most = repeated.columns[repeated.iloc[fullest].notna().to_numpy()]
    block = repeated[most].dropna()
    sizes, seeds = block.shape
    if sizes < 2:
        return RunNoise(source="seeds", run_spread=pooled, run_freedom=freedom)
    # Two-way layout: sizes are fixed, seeds random (Searle, Variance Components, chapter 4).
    deviations = block.sub(block.mean(axis=1), axis=0)
    of_seed = deviations.mean(axis=0)
    own = float((deviations.sub(of_seed, axis=1).to_numpy() ** 2).sum()) / (
        (sizes - 1) * (seeds - 1)
    )
    between = sizes * float((of_seed.to_numpy() ** 2).sum()) / (seeds - 1)
    return RunNoise(
        source="seeds",
        run_spread=math.sqrt(own),
        run_freedom=(sizes - 1) * (seeds - 1),
        seed_spread=math.sqrt(max(0.0, (between - own) / sizes)),
        seed_freedom=seeds - 1,
        shared_sizes=sizes,
    )


def minimum_draws(
    table: pd.DataFrame,
    variant: str,
    budget_flops: float,
    estimator: Literal["parabola", "akima"],
    noise: RunNoise,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Return log size and loss at the minima of noisy copies of a variant's curve at a budget.

    Both have shape (resamples,), with NaN where a copy's minimum was refused.

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
    centre = rows.groupby("parameters")["loss"].transform("mean").to_numpy()
    seeds = np.unique(rows["seed"].to_numpy(), return_inverse=True)[1]
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        shared, own = _drawn_spreads(noise, generator)
        drawn = centre + own * generator.standard_normal(len(sizes))
        drawn += shared * generator.standard_normal(int(seeds.max()) + 1)[seeds]
        found.append(_minimum(estimator, sizes, drawn))
    sizes_found = [math.log(one.parameters) if one.parameters else math.nan for one in found]
    losses_found = [math.nan if one.loss is None else one.loss for one in found]
    return np.array(sizes_found), np.array(losses_found)


def _minimum(estimator: Literal["parabola", "akima"], sizes: Floats, losses: Floats) -> Minimum:
    if estimator == "parabola":
        return parabola(sizes, losses)
    # A copy may fall below zero where losses are small against their noise.
    return akima(sizes, np.maximum(losses, 1e-12))


def _drawn_spreads(noise: RunNoise, generator: np.random.Generator) -> tuple[float, float]:
    """Return a shared and an own spread that the measured ones might have come from."""
    own = noise.run_spread**2 * noise.run_freedom / generator.chisquare(noise.run_freedom)
    if not noise.seed_freedom:
        return 0.0, math.sqrt(own)
    between = noise.run_spread**2 + noise.shared_sizes * noise.seed_spread**2
    between *= noise.seed_freedom / generator.chisquare(noise.seed_freedom)
    return math.sqrt(max(0.0, between - own) / noise.shared_sizes), math.sqrt(own)


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
