"""Runs whose losses are told apart by position."""

from __future__ import annotations

from isoflop.config import Positions, RunConfig

SPANS = ((0, 4), (4, 8), (8, 12), (12, 16), (0, 16), (11, 16))


def told_apart(config: RunConfig) -> RunConfig:
    """Return a run on windows of 16 with SPANS: four ranges, the window, its last 5 targets."""
    data = config.data.model_copy(update={"windows": "documents"})
    positions = Positions(ranges=4, trailing=5)
    return config.model_copy(update={"data": data, "positions": positions})
