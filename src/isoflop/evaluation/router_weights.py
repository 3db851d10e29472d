"""How router weights are spread over tokens that a block processes and skips (arXiv 2404.02258,
figure 5).

Axes: R routed blocks, W windows, T time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import RouterWeights

KEPT = 1 << 18
"""Tokens of a block whose weights are kept, the first ones."""
RANGES = 48
OUTSIDE = 0.001
"""Share of the weights at either end that the outermost ranges take up."""


class WeightSums:
    """Keeps the first router weights of each routed block, and what became of their tokens.

    Args:
        routed: R.
    """

    def __init__(self, routed: int) -> None:
        self._weights: list[list[NDArray[np.float32]]] = [[] for _ in range(routed)]
        self._selected: list[list[NDArray[np.bool_]]] = [[] for _ in range(routed)]
        self._tokens = 0

    def add(self, weights: NDArray[np.float32], selected: NDArray[np.bool_]) -> None:
        """Add windows: router weights and what was processed, each (R, W, T)."""
        room = KEPT - self._tokens
        if room <= 0:
            return
        for index, (one, taken) in enumerate(zip(weights, selected, strict=True)):
            self._weights[index].append(one.ravel()[:room])
            self._selected[index].append(taken.ravel()[:room])
        self._tokens += min(room, weights[0].size)

    def histogram(self, index: int) -> RouterWeights:
        """Return how the weights of the routed block with this index are spread."""
        weights = np.concatenate(self._weights[index]).astype(np.float64)
        selected = np.concatenate(self._selected[index])
        low, high = np.quantile(weights, [OUTSIDE, 1 - OUTSIDE])
        if low == high:
            low, high = low - 0.5, high + 0.5
        edges = np.linspace(low, high, RANGES + 1)
        inside = weights.clip(low, high)
        return RouterWeights(
            edges=tuple(edges.tolist()),
            processed=tuple(np.histogram(inside[selected], edges)[0].tolist()),
            skipped=tuple(np.histogram(inside[~selected], edges)[0].tolist()),
        )
