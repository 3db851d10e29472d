"""The learning rate over a run."""

from __future__ import annotations

import math

from isoflop.config import RunConfig


def rate_factor(config: RunConfig, step: int) -> float:
    """Return the share of the peak rate at `step` (0 is the first): warm-up, then cosine.

    The cosine reaches `final_fraction` one step behind the last, so that none has a rate of zero.
    """
    recipe = config.recipe
    warmup = round(recipe.warmup_fraction * config.steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, config.steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return recipe.final_fraction + (1 - recipe.final_fraction) * cosine
