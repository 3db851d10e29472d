"""Whether a causal decision selects what top-k does (arXiv 2404.02258, section 3.5).

Axes: R routed blocks, W windows, T time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Agreement


class AgreementSums:
    """Counts, for each routed block, tokens by both selections.

    Args:
        routed: R.
    """

    def __init__(self, routed: int) -> None:
        self._tokens = 0
        self._both, self._selected, self._top_k = np.zeros((3, routed), dtype=np.int64)

    def add(self, selected: NDArray[np.bool_], top_k: NDArray[np.bool_]) -> None:
        """Add windows: what a decision and what top-k select, each (R, W, T)."""
        self._tokens += selected[0].size
        self._both += (selected & top_k).sum((1, 2))
        self._selected += selected.sum((1, 2))
        self._top_k += top_k.sum((1, 2))

    def agreement(self, index: int) -> Agreement:
        """Return how the selections of the routed block with this index compare."""
        both, selected = int(self._both[index]), int(self._selected[index])
        top_k = int(self._top_k[index])
        return Agreement(
            accuracy=(self._tokens - selected - top_k + 2 * both) / self._tokens,
            precision=both / selected if selected else None,
            recall=both / top_k,
        )
