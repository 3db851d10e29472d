"""Budgets that nearly agree count as one."""

from __future__ import annotations

import math

import numpy as np

from isoflop.fit.minimum import Floats

TOLERANCE = 0.1
"""Budgets within this share of their group's middle count as one."""
TOLD = 5e-4
"""Share by which budgets may differ from their group's middle without a word."""


def group_budgets(budget_flops: Floats, tolerance: float = TOLERANCE) -> tuple[Floats, float]:
    """Return the middle of each run's group of budgets, and the largest share by which one is off.

    Walking up, a group ends where the next budget would make it wider than `tolerance` allows on
    either side of its middle. The middle is the geometric mean of the lowest and the highest.
    """
    order = np.argsort(budget_flops, kind="stable")
    ascending = budget_flops[order]
    widest = (1 + tolerance) ** 2 * (1 + 1e-12)
    middles = np.empty_like(ascending)
    start, farthest = 0, 0.0
    while start < len(ascending):
        stop = int(np.searchsorted(ascending, ascending[start] * widest, side="right"))
        low, high = ascending[start], ascending[stop - 1]
        middle = low if low == high else math.sqrt(low) * math.sqrt(high)
        middles[start:stop] = middle
        farthest = max(farthest, float(high / middle - 1))
        start = stop
    grouped = np.empty_like(middles)
    grouped[order] = middles
    return grouped, farthest
