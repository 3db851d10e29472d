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
from isoflop.fit.minima.draws import run_noise
from isoflop.fit.minima.parabola import PARABOLA, PARABOLA_SIZES, fit_parabola
from isoflop.fit.tables.frame import budgets, curve_rows

STUDIES = 150
"""Drawn for each number of seeds: the difference told then has an error of about 5%."""
SHARE = 0.8
"""Of studies that are to resolve a difference."""
FEW_SEEDS, MOST_SEEDS = 5, 1000
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

    Others are paired with the baseline seed by seed. None where no size near a minimum has two.
    """
    names = table["variant"].drop_duplicates().tolist()
    rows = {key: curve_rows(table, *key) for key in itertools.product(names, budgets(table))}
    found = {key: noisy_minimum(table, *key) for key in rows}
    found = {key: one for key, one in found.items() if one.run_spread is not None}
    if not found:
        return None
    told = [noise for key in found if (noise := run_noise(rows[key])) is not None]
    own = _pooled([(one.run_spread**2, one.run_freedom) for one in told])
    of_seed = _pooled([(one.seed_spread**2, one.seed_freedom) for one in told])
    pairs = [
        _paired(one, found[baseline, budget], own)
        for (name, budget), one in found.items()
        if name != baseline and (baseline, budget) in found
    ]
    paired = [pair for pair in pairs if pair is not None]
    apart = _pooled([(gap / 2, free) for gap, _, free in paired]) if paired else of_seed
    spreads = {
        name: [
            ((one.run_spread or 0.0) ** 2, one.run_spread_freedom)
            for (whose, _), one in found.items()
            if whose == name
        ]
        for name, _ in found
    }
    bends = [fit_parabola(rows[key]["parameters"], rows[key]["loss"]).curvature for key in found]
    seeds = [rows[key].groupby("parameters")["seed"].transform("nunique") for key in found]
    return SeedNoise(
        spread=math.sqrt(_pooled(list(itertools.chain(*spreads.values())))),
        variants={name: math.sqrt(_pooled(one)) for name, one in spreads.items()},
        own_spread=math.sqrt(own),
        apart_spread=math.sqrt(max(0.0, apart)),
        shared_spread=math.sqrt(max(0.0, of_seed - max(0.0, apart))),
        correlation=_pooled([(shared, free) for _, shared, free in paired]) if paired else None,
        curvature=float(np.median(bends)),
        runs=sum(int((one >= 2).sum()) for one in seeds),
    )


def _pooled(found: list[tuple[float, int]]) -> float:
    """Return the mean of values, each as often as it has degrees of freedom."""
    free = sum(freedom for _, freedom in found)
    return sum(value * freedom for value, freedom in found) / free if free else 0.0


def _paired(one: NoisyMinimum, base: NoisyMinimum, own: float) -> tuple[float, float, int] | None:
    """Return of two minima, by the seeds that they share, what these move apart.

    The variance of their differences less that of runs' own parts, `own` each, the correlation
    of both, and the degrees of freedom; None with fewer than two seeds.
    """
    seeds = [seed for seed in one.seed_deviations if seed in base.seed_deviations]
    if len(seeds) < 2:
        return None
    values = np.array([[two.seed_deviations[seed] for seed in seeds] for two in (one, base)])
    alike = float(np.corrcoef(values)[0, 1]) if values.std(axis=1).all() else 0.0
    alone = own / one.replicated_sizes + own / base.replicated_sizes
    return float((values[0] - values[1]).var(ddof=1)) - alone, alike, len(seeds) - 1


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
    drawn, once = seeds, found
    if found is None or design.looks_from is not None:
        drawn = FEW_SEEDS
        once = resolvable(noise, replace(design, looks_from=None), drawn)
    enough = None
    if once is not None:
        # Between numbers of seeds it goes as the power of Student's test.
        scale = once[0] / _relative(drawn)
        enough = next((n for n in range(2, MOST_SEEDS + 1) if scale * _relative(n) <= goal), None)
    return Power(
        seeds=seeds,
        looks_from=design.looks_from,
        resolves=found and found[0],
        half_width=found and found[1],
        margin=goal,
        margin_seeds=enough,
        noise=noise,
        source=source,
    )


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
    minimum = PARABOLA.find(sizes[shapes], losses[trained])
    if minimum.loss is None:
        return None
    return noisy_curve("", minimum, sizes[shapes], losses[trained], (shapes, labels))


def _relative(n: int) -> float:
    """Return the difference that n pairs resolve in `SHARE` of samples, over their spread."""
    quantiles = special.stdtrit(n - 1, [(1 + LEVEL) / 2, SHARE])
    return float(quantiles.sum()) / math.sqrt(n)
