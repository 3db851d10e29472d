"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import assert_never

from isoflop.config import Cosine, Linear, RunConfig, WarmupStableDecay


def rate_factor(config: RunConfig, step: int) -> float:
    """Return the share of the peak rate at `step` (0 is the first): warm-up, then the schedule.

    It reaches `final_fraction` one step behind the last, so that none has a rate of zero.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    match config.recipe.schedule:
        case Cosine():
            kept = 0.5 * (1 + math.cos(math.pi * progress))
        case Linear():
            kept = 1 - progress
        case WarmupStableDecay(decay=decay) as schedule:
            first = config.decays_from(schedule)
            fallen = max(0.0, (step - first) / max(1, config.steps - first))
            kept = 1 - (fallen if decay == "linear" else fallen**0.5)
        case _:
            assert_never(config.recipe.schedule)
    final = config.recipe.final_fraction
    return final + (1 - final) * kept
