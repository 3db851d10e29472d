"""The sizes of an isoFLOP curve: shapes a factor apart around an expected optimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from isoflop.config import Choices, Grid, ModelConfig, ShapeFamily
from isoflop.config.study import LARGEST_PARAMETERS
from isoflop.costs import parameters
from isoflop.planning.shapes import shape, smallest_shape

FEWEST_SIZES = 3
"""A curve of fewer has no minimum; a grid that asks for fewer wants none."""


@dataclass(frozen=True)
class Ladder:
    """Sizes a factor apart around an expected optimum, by index; each is found when asked for.

    Rungs 0 to `grid.sizes` - 1 surround the centre; lower and higher ones continue the ladder.
    Where a family cannot reach a size (its shapes lie too far apart there), the next shape that
    is clearly distinct takes the rung.
    """

    family: ShapeFamily
    grid: Grid
    centre_parameters: float
    vocabulary: int
    choices: Choices

    def rung(self, index: int) -> ModelConfig | None:
        """Return the shape of a rung, or None beyond either end of the ladder."""
        model = self.unbounded_rung(index)
        if model is None:
            return None
        total = parameters(model).total
        lowest, highest = self.grid.minimum_parameters, self.grid.maximum_parameters
        if (lowest is not None and total < lowest) or (highest is not None and total > highest):
            return None
        return model

    def unbounded_rung(self, index: int) -> ModelConfig | None:
        """Return the shape of a rung whatever the grid's bounds; None where the family ends."""
        return _unbounded_rung(self, index)

    @property
    def initial(self) -> range:
        """Indices of the first sizes: `grid.sizes` of them, moved up or down where it ends.

        Raises:
            ValueError: If the bounds leave fewer than three sizes, or than the grid asks for.
        """
        first = last = self._inside()
        while last - first + 1 < self.grid.sizes:
            if first > 0 and self.rung(first - 1) is not None:
                first -= 1
            elif self.rung(last + 1) is not None:
                last += 1
            elif self.rung(first - 1) is not None:
                first -= 1
            else:
                break
        wanted = min(FEWEST_SIZES, self.grid.sizes)
        if last - first + 1 < wanted:
            raise ValueError(
                f"{self._bounds()} leave {last - first + 1} sizes a factor of {self.grid.factor} "
                f"apart; expected at least {wanted}: widen them or lower grid.factor"
            )
        return range(first, last + 1)

    def _inside(self) -> int:
        """Return the rung nearest the centre that is within the bounds.

        Sizes rise from rung to rung, so the search walks towards the bounds and never past them.
        """
        index = (self.grid.sizes - 1) // 2
        lowest = self.grid.minimum_parameters or 0
        highest = self.grid.maximum_parameters or math.inf
        model = _unbounded_rung(self, index)
        step = -1 if model is not None and parameters(model).total > highest else 1
        while model is not None:
            total = parameters(model).total
            if lowest <= total <= highest:
                return index
            if total < lowest if step < 0 else total > highest:
                break
            index += step
            model = _unbounded_rung(self, index)
        raise ValueError(f"{self._bounds()} leave no size of the family; widen them")

    def _bounds(self) -> str:
        return (
            f"grid.minimum_parameters = {self.grid.minimum_parameters} and "
            f"grid.maximum_parameters = {self.grid.maximum_parameters}"
        )


@lru_cache(maxsize=4096)
def _unbounded_rung(ladder: Ladder, index: int) -> ModelConfig | None:
    """Return a rung, found outward from the centre so that it does not depend on the others."""
    factor = ladder.grid.factor
    target = ladder.centre_parameters * factor ** (index - (ladder.grid.sizes - 1) / 2)
    pivot = (ladder.grid.sizes - 1) // 2
    if index == pivot:
        return _nearest(ladder, target)
    upwards = index > pivot
    inner = _unbounded_rung(ladder, index - 1 if upwards else index + 1)
    if inner is None:
        return None
    # Neighbours stay at least half a rung apart, so that they are distinct sizes.
    bound = parameters(inner).total * factor ** (0.5 if upwards else -0.5)
    while target <= LARGEST_PARAMETERS:
        model = _nearest(ladder, target)
        total = parameters(model).total
        if (upwards and total >= bound) or (not upwards and total <= bound):
            return model
        if not upwards and model == _smallest(ladder):
            return None
        target *= factor ** (0.25 if upwards else -0.25)
    return None


def _nearest(ladder: Ladder, target: float) -> ModelConfig:
    return shape(
        ladder.family,
        target,
        vocabulary=ladder.vocabulary,
        choices=ladder.choices,
    )


def _smallest(ladder: Ladder) -> ModelConfig:
    return smallest_shape(
        ladder.family,
        vocabulary=ladder.vocabulary,
        choices=ladder.choices,
    )
