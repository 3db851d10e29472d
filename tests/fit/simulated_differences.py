"""Pairs of variants drawn from known surfaces: how often the interval of their difference holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from known_surfaces import ASYMMETRIC, SIZES, SYMMETRIC, optimum

from isoflop.estimate import LEVEL
from isoflop.fit import run_table
from isoflop.fit.curves.seeds import minimum_difference, noisy_curve, noisy_minimum
from isoflop.fit.intervals import WithError
from isoflop.fit.minima.parabola import PARABOLA
from isoflop.fit.surfaces.surface import Surface

FLOPS = 1e18
SURFACES = {"baseline": SYMMETRIC, "variant": ASYMMETRIC}


@dataclass(frozen=True)
class Pair:
    """Two variants at one budget: seven sizes, seeds at the three lowest, one elsewhere."""

    own: float = 0.007
    """Standard deviation of a run's own noise, nats."""
    shared: float = 0.004
    """Of the noise that all runs of a seed share."""
    common: bool = True
    """Whether a seed moves both variants alike, as the order of data may."""
    paired: bool = True
    """Whether both variants have the same seeds."""
    shift: float = 1.0
    """Middle of the sizes over the optimum."""
    stuck: float = 0.0
    """How often the smallest size is 0.08 nats higher than it should be."""
    seeds: int = 3

    def study(self, seed: int) -> pd.DataFrame:
        """Return the runs of one study."""
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((2, self.seeds)) * self.shared
        rows = []
        for i, (name, surface) in enumerate(SURFACES.items()):
            n = optimum(surface, FLOPS) * self.shift * SIZES
            off = shared[0 if self.common and self.paired else i]
            first = surface.loss(n, FLOPS / 6 / n)
            if rng.random() < self.stuck:
                first[0] += 0.08
            losses = first[:, None] + off + self.own * rng.standard_normal((len(n), self.seeds))
            best = int(np.argmin(losses[:, 0]))
            for size, of_size in enumerate(losses):
                for one in range(self.seeds if abs(size - best) <= 1 else 1):
                    label = one if self.paired else self.seeds * i + one
                    rows.append((name, n[size], FLOPS, label, of_size[one]))
        columns = ["variant", "parameters", "budget_flops", "seed", "loss"]
        return run_table(pd.DataFrame(rows, columns=columns)).table


PAIRS = {
    "as usual": Pair(),
    "seeds move variants apart": Pair(common=False),
    "other seeds": Pair(paired=False),
    "seeds count most": Pair(own=0.003, shared=0.008),
    "much noise": Pair(own=0.015, shared=0.008),
    "off centre by 2": Pair(shift=2),
    "some smallest sizes stuck": Pair(stuck=0.3),
    "hardly any noise": Pair(own=0.0003, shared=0.0003),
}


def difference_coverage(pair: Pair, studies: int, level: float = LEVEL) -> dict[str, float]:
    """Return how often intervals hold the difference, their half width, and what has one."""
    truth = _minimum(SURFACES["variant"]) - _minimum(SURFACES["baseline"])
    held, widths = [], []
    for seed in range(studies):
        table = pair.study(seed)
        found = minimum_difference(
            noisy_minimum(table, "variant", FLOPS), noisy_minimum(table, "baseline", FLOPS)
        )
        if found is None:
            continue
        interval = found[0].interval(level)
        held.append(interval.low <= truth <= interval.high)
        widths.append(interval.high - interval.value)
    return {
        "held": float(np.mean(held)),
        "half width": float(np.median(widths)),
        "compared": len(held) / studies,
    }


def _minimum(surface: Surface) -> float:
    n = optimum(surface, FLOPS)
    return float(surface.loss(n, FLOPS / 6 / n))


def watched_coverage(pair: Pair, declared: int, most: int, studies: int) -> dict[str, float]:
    """Return how often intervals hold the difference at every look, one after each seed.

    Seeds are added to the sizes that the first one chose. Of Student's interval, and of the one
    that is meant for that, with the median half widths of the second at the first and last look.
    """
    truth = _minimum(SURFACES["variant"]) - _minimum(SURFACES["baseline"])
    held, widths = [], []
    for study in range(studies):
        rng = np.random.default_rng(study)
        shared = rng.standard_normal((2, most)) * pair.shared
        curves = []
        for i, surface in enumerate(SURFACES.values()):
            n = optimum(surface, FLOPS) * pair.shift * SIZES * 1.6 ** rng.uniform(-0.5, 0.5)
            losses = surface.loss(n, FLOPS / 6 / n)[:, None] + shared[0 if pair.common else i]
            losses = losses + pair.own * rng.standard_normal((len(n), most))
            apart = np.abs(np.arange(len(n)) - np.argmin(losses[:, 0]))
            curves.append((n, losses, (apart[:, None] <= 1) | (np.arange(most) == 0)))
        looks = [_looked_at(curves, seeds, declared) for seeds in range(declared, most + 1)]
        if None in looks:
            continue
        ends = np.array([[one.interval().ends for one in look] for look in looks])
        held.append(((ends[..., 0] <= truth) & (truth <= ends[..., 1])).all(axis=0))
        widths.append(np.ptp(ends[[0, -1], 1], axis=1) / 2)
    once, always = np.mean(held, axis=0)
    first, last = np.median(widths, axis=0)
    return {"once": once, "always": always, "first": first, "last": last}


def _looked_at(curves, seeds: int, declared: int) -> tuple[WithError, WithError] | None:
    """Return Student's difference after so many seeds, and the one for all looks."""
    found = []
    for n, losses, trained in curves:
        shapes, labels = np.nonzero(trained[:, :seeds])
        minimum = PARABOLA.find(n[shapes], losses[shapes, labels])
        if minimum.loss is None:
            return None
        found.append(noisy_curve("", minimum, n[shapes], losses[shapes, labels], (shapes, labels)))
    once = minimum_difference(found[1], found[0])
    always = minimum_difference(found[1], found[0], declared)
    assert once is not None
    assert always is not None
    return once[0], always[0]
