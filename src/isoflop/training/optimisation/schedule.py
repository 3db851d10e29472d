"""The learning rate over a run."""

from __future__ import annotations

import math
from typing import assert_never

from isoflop.config import Cosine, Linear, RunConfig, WarmupStableDecay


def warmup_steps(config: RunConfig) -> int:
    """Return the steps in which the rate rises to its peak."""
    recipe = config.recipe
    if recipe.warmup_steps is not None:
        return min(recipe.warmup_steps, config.steps)
    return round(recipe.warmup_fraction * config.steps)


def rate_factor(config: RunConfig, step: int) -> float:
    """Return the share of the peak rate at `step` (0 is the first): warm-up, then the schedule.

    It reaches `final_fraction` one step behind the last, so that none has a rate of zero.
    """
    warmup = warmup_steps(config)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    match config.recipe.schedule:
        case Cosine():
            kept = 0.5 * (1 + math.cos(math.pi * progress))
        case Linear():
            kept = 1 - progress
        case WarmupStableDecay(decay=decay) as schedule:
            first = decays_from(config, schedule)
            fallen = max(0.0, (step - first) / max(1, config.steps - first))
            kept = 1 - (fallen if decay == "linear" else fallen**0.5)
        case _:
            assert_never(config.recipe.schedule)
    final = config.recipe.final_fraction
    return final + (1 - final) * kept


def decays_from(config: RunConfig, schedule: WarmupStableDecay) -> int:
    """Return the step from which the rate falls: no part of a run's warm-up."""
    decaying = max(1, round(schedule.decay_fraction * config.steps))
    return max(warmup_steps(config), config.steps - decaying)
