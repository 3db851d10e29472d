"""Values read off the figures of Mixture-of-Depths (arXiv 2404.02258); approximate."""

from __future__ import annotations

import math
from functools import cache
from importlib import resources

from pydantic import Field

from isoflop.config import Frozen


class PublishedMinimum(Frozen):
    """Lowest loss of one variant at one budget, as read off a figure."""

    variant: str
    budget_flops: float = Field(gt=0)
    loss: float
    """Nats per token."""
    parameters_low: float | None = None
    parameters_high: float | None = None
    """Range in which the minimum lies; both None where the figure does not tell."""

    @property
    def parameters(self) -> float | None:
        """Geometric middle of the range of parameters, where the figure tells one."""
        if self.parameters_low is None or self.parameters_high is None:
            return None
        return math.sqrt(self.parameters_low * self.parameters_high)


class PublishedModel(Frozen):
    """One of the four models that Figure 3 singles out."""

    number: int = Field(ge=1, le=4)
    variant: str
    parameters: float
    flops_per_step: float
    steps_per_second: float
    """On the published TPUv5."""


class PublishedPoint(Frozen):
    """A point of Figure 4, right: both coordinates relative to the optimal baseline."""

    name: str
    forward_flops: float
    loss: float


class Figure3(Frozen):
    """Variants at one budget, and four models of them."""

    budget_flops: float
    minima: tuple[PublishedMinimum, ...]
    order: tuple[str, ...]
    """Variants by their minimum loss, the lowest first."""
    models: tuple[PublishedModel, ...]


class Figure4(Frozen):
    """Baseline and Mixture-of-Depths at three budgets."""

    minima: tuple[PublishedMinimum, ...]
    points: tuple[PublishedPoint, ...]


class ModFigures(Frozen):
    """What Figures 3 and 4 of Mixture-of-Depths show."""

    about: str
    figure3: Figure3
    figure4: Figure4


@cache
def mod_figures() -> ModFigures:
    """Return the published values of Figures 3 and 4 (arXiv 2404.02258)."""
    source = resources.files("isoflop.papers").joinpath("mod_figures.json")
    return ModFigures.model_validate_json(source.read_bytes())
