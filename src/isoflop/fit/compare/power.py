"""What difference of two minima a study will tell, from the noise of runs that were recorded.

Studies are drawn and judged as `isoflop.fit.curves.seeds` judges real ones. A run's loss is a
parabola in log parameters, plus what its seed adds to every run of both variants, what its seed
adds to the runs of its variant, and a part of its own, each normal.

Axes: P runs, S sizes, K seeds.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from isoflop.estimate import LEVEL, Power, SeedNoise
from isoflop.fit.curves.seeds import (
    NEAREST,
    NoisyMinimum,
    minimum_difference,
    noisy_curve,
    noisy_minimum,
)
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.noise import run_noise
from isoflop.fit.minima.parabola import PARABOLA_SIZES, fit_parabola, parabola
from isoflop.fit.tables.frame import budgets, curve_rows

STUDIES = 150
"""Drawn for each number of seeds: the difference told then has an error of about 5%."""
SHARE = 0.8
"""Of studies that are to resolve a difference."""
MOST_SEEDS = 1000
USUAL_MARGIN = 0.01
"""Difference that is asked about where none was declared, nats per token."""


@dataclass(frozen=True)
class Design:
    """How the variants of a pair are trained at one budget."""

    sizes: tuple[Floats, Floats]
    """Parameters of each variant's first sizes, (S,), ascending."""
    everywhere: bool = False
    """Whether every seed is trained at every size, or near the minimum only."""
    looks_from: int | None = None
    """Seeds at the first look, where one looks after each further one."""


def recorded_noise(table: pd.DataFrame, baseline: str) -> SeedNoise | None:
    """Return how far seeds move runs near the minimum, pooled over variants and budgets.

    Args:
        table: as `isoflop.fit.frame` makes it.
        baseline: the variant that others are paired with, seed by seed.

    Returns:
        The noise; None where no size near a minimum has two seeds.
    """
    names = table["variant"].drop_duplicates().tolist()
    curves = {}
    for key in itertools.product(names, budgets(table)):
        minimum = noisy_minimum(table, *key)
        if minimum.run_spread is not None:
            curves[key] = minimum, curve_rows(table, *key)
    if not curves:
        return None
    spreads: dict[str, list[tuple[float, int]]] = {}
    own, of_seed, bends, runs = [], [], [], 0
    for (name, _), (minimum, rows) in curves.items():
        noise = run_noise(rows)
        assert minimum.run_spread is not None
        assert noise is not None
        spreads.setdefault(name, []).append((minimum.run_spread**2, minimum.run_spread_freedom))
        own.append((noise.run_spread**2, noise.run_freedom))
        of_seed.append((noise.seed_spread**2, noise.seed_freedom))
        bends.append(fit_parabola(rows["parameters"], rows["loss"]).curvature)
        runs += int(rows.groupby("parameters")["seed"].transform("nunique").ge(2).sum())
    own_variance, seed_variance = _pooled(own), _pooled(of_seed)
    pairs = [
        (minimum, curves[baseline, budget][0])
        for (name, budget), (minimum, _) in curves.items()
        if name != baseline and (baseline, budget) in curves
    ]
    paired = [one for one in map(_paired, pairs) if one is not None]
    apart_variance, correlation, gap_variance = seed_variance, None, None
    if paired:
        gap_variance = _pooled([(gap, free) for gap, _, _, free in paired])
        alone = _pooled([(own_variance * share, free) for _, share, _, free in paired])
        apart_variance = max(0.0, gap_variance - alone) / 2
        correlation = sum(one[2] * one[3] for one in paired) / sum(one[3] for one in paired)
    return SeedNoise(
        spread=math.sqrt(_pooled(list(itertools.chain(*spreads.values())))),
        variants={name: math.sqrt(_pooled(found)) for name, found in spreads.items()},
        own_spread=math.sqrt(own_variance),
        apart_spread=math.sqrt(apart_variance),
        shared_spread=math.sqrt(max(0.0, seed_variance - apart_variance)),
        correlation=correlation,
        difference_spread=None if gap_variance is None else math.sqrt(gap_variance),
        curvature=float(np.median(bends)),
        runs=runs,
    )


def _pooled(found: list[tuple[float, int]]) -> float:
    """Return the mean of variances, each as often as it has degrees of freedom."""
    free = sum(freedom for _, freedom in found)
    return sum(variance * freedom for variance, freedom in found) / free if free else 0.0


def _paired(pair: tuple[NoisyMinimum, NoisyMinimum]) -> tuple[float, float, float, int] | None:
    """Return of the seeds that two minima share what their deviations tell.

    The variance of their differences, the share that one run's own part has in it, their
    correlation, and the degrees of freedom; None with fewer than two seeds.
    """
    first, second = (one.seed_deviations for one in pair)
    seeds = [seed for seed in first if seed in second]
    if len(seeds) < 2 or not all(one.replicated_sizes for one in pair):
        return None
    values = np.array([[one[seed] for seed in seeds] for one in (first, second)])
    spreads = values.std(axis=1)
    correlation = float(np.corrcoef(values)[0, 1]) if spreads.all() else 0.0
    share = sum(1 / one.replicated_sizes for one in pair)
    return float((values[0] - values[1]).var(ddof=1)), share, correlation, len(seeds) - 1


def resolvable(noise: SeedNoise, design: Design, seeds: int) -> tuple[float, float] | None:
    """Return the difference that most studies resolve, and their half width, nats per token.

    A study resolves a difference where its interval excludes zero. What it is off by and how wide
    it is do not depend on the difference, so the same draws tell it for every one.

    Returns:
        The difference that `SHARE` of the studies resolve, and the median half width; None where
        they have one seed, fewer than three sizes, or for the most part no minimum.
    """
    if seeds < 2 or min(map(len, design.sizes)) < PARABOLA_SIZES:
        return None
    needed, widths = [], []
    generator = np.random.default_rng(seeds)
    for _ in range(STUDIES):
        shared = noise.shared_spread * generator.standard_normal(seeds)
        curves = [_drawn(noise, design, sizes, shared, generator) for sizes in design.sizes]
        if curves[0] is None or curves[1] is None:
            continue
        found = minimum_difference(curves[0], curves[1], design.looks_from)
        if found is not None:
            interval = found[0].interval()
            widths.append(interval.ends[1] - interval.value)
            needed += [widths[-1] - interval.value, widths[-1] + interval.value]
    if len(widths) < STUDIES / 2:
        return None
    return float(np.quantile(needed, SHARE)), float(np.median(widths))


def _drawn(
    noise: SeedNoise, design: Design, sizes: Floats, shared: Floats, rng: np.random.Generator
) -> NoisyMinimum | None:
    """Return the minimum of one variant of a made-up study, None where it has none."""
    x, seeds = np.log(sizes), len(shared)
    # Anywhere between the middle sizes, as the optimum of a real grid is.
    x = x - x[len(x) // 2] - rng.uniform(-0.5, 0.5) * (x[-1] - x[0]) / (len(x) - 1)
    losses = (noise.curvature * x**2)[:, None] + shared
    losses = losses + noise.apart_spread * rng.standard_normal(seeds)
    losses = losses + noise.own_spread * rng.standard_normal((len(x), seeds))
    best = int(np.argmin(losses.mean(axis=1) if design.everywhere else losses[:, 0]))
    trained = np.ones_like(losses, dtype=np.bool_)
    if not design.everywhere:
        trained[:, 1:] = (np.abs(np.arange(len(x)) - best) <= NEAREST // 2)[:, None]
    shapes, labels = np.nonzero(trained)
    minimum = parabola(sizes[shapes], losses[trained])
    if minimum.loss is None:
        return None
    return noisy_curve("", minimum, sizes[shapes], losses[trained], (shapes, labels))


def expected_power(
    noise: SeedNoise, design: Design, seeds: int, margin: float | None, source: str
) -> Power:
    """Return what a study of so many seeds resolves, and how many would resolve its margin.

    Args:
        noise: of runs alike.
        design: how a pair is trained; where it is looked at, to `seeds` in the end.
        seeds: of each variant.
        margin: difference to be resolved, nats per token; `USUAL_MARGIN` if none was declared.
        source: whose runs the noise is of.
    """
    found, goal = resolvable(noise, design, seeds), margin or USUAL_MARGIN
    resolves, half_width = found or (None, None)
    told = Power(
        seeds=seeds,
        looks_from=design.looks_from,
        resolves=resolves,
        half_width=half_width,
        margin=goal,
        margin_seeds=_seeds_for(noise, design, goal, seeds, resolves),
        noise=noise,
        source=source,
    )
    return told


def _seeds_for(
    noise: SeedNoise, design: Design, difference: float, seeds: int, resolves: float | None
) -> int | None:
    """Return the fewest seeds with which `SHARE` of studies resolve a difference, at one look.

    Between numbers of seeds that are drawn, what they resolve goes as the power of Student's test.
    """
    once = replace(design, looks_from=None)
    if resolves is None or design.looks_from is not None:
        seeds = 5
        resolves = (resolvable(noise, once, seeds) or (None,))[0]
    for drawn_again in (True, False):
        if resolves is None:
            return None
        scale = resolves / _relative(seeds)
        counts = range(2, MOST_SEEDS + 1)
        seeds = next((n for n in counts if scale * _relative(n) <= difference), 0)
        if not seeds or not drawn_again:
            break
        resolves = (resolvable(noise, once, seeds) or (None,))[0]
    return seeds or None


def _relative(n: int) -> float:
    """Return the difference that n pairs resolve in `SHARE` of samples, over their spread."""
    quantiles = special.stdtrit(n - 1, [(1 + LEVEL) / 2, SHARE])
    return float(quantiles.sum()) / math.sqrt(n)
