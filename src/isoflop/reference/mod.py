"""Values read off the figures of Mixture-of-Depths (arXiv 2404.02258); approximate."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import resources
from typing import Any

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
    source = resources.files("isoflop.reference").joinpath("mod_figures.json")
    raw = json.loads(source.read_text(encoding="utf-8"))
    third, fourth = raw["figure3"], raw["figure4"]
    return ModFigures(
        about=raw["about"],
        figure3=Figure3(
            budget_flops=third["budget_flops"],
            minima=_minima(third["minima"], third["budget_flops"]),
            order=tuple(third["order_of_minimum_loss"]),
            models=tuple(
                PublishedModel(
                    number=int(number),
                    variant=model["variant"],
                    parameters=model["parameters"],
                    flops_per_step=model["flops_per_step"],
                    steps_per_second=model["steps_per_second_tpuv5"],
                )
                for number, model in sorted(third["models"].items())
            ),
        ),
        figure4=Figure4(
            minima=tuple(
                minimum
                for budget, minima in fourth["minima"].items()
                for minimum in _minima(minima, float(budget))
            ),
            points=tuple(
                PublishedPoint(name=name, forward_flops=point[0], loss=point[1])
                for name, point in fourth["normalised"].items()
                if name != "axes"
            ),
        ),
    )


def _minima(raw: dict[str, Any], budget_flops: float) -> tuple[PublishedMinimum, ...]:
    minima = []
    for variant, value in raw.items():
        size = value.get("parameters")
        low, high = size if isinstance(size, list) else (size, size)
        minima.append(
            PublishedMinimum(
                variant=variant,
                budget_flops=budget_flops,
                loss=value["loss"],
                parameters_low=low,
                parameters_high=high,
            )
        )
    return tuple(minima)
