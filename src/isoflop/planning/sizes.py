"""Sizes: shapes from a wanted number of parameters, and the ladder of them around an optimum."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

from isoflop.config import Choices, Grid, ModelConfig, Routed, ShapeFamily
from isoflop.config.study import LARGEST_PARAMETERS
from isoflop.costs import parameters
from isoflop.variants import period

ASPECT_WEIGHT = 0.1
"""How much a missed ratio of width to blocks weighs against missed parameters.

A shape's score is log(N / target)^2 + 0.1 log(aspect / wanted)^2: 10% of parameters are given
for an aspect that is nearer by a factor of about 1.4. Fits use the parameters a model really has,
so missing the target a little costs nothing, while shapes that jump between deep and wide scatter
the losses.
"""

_MOST_WIDTH_STEPS = 65_536
_MOST_BLOCKS = 10_000
Sized = Callable[[int, int], tuple[ModelConfig, int]]
"""Gives the model of so many blocks and that width, and its total parameters."""


@lru_cache(maxsize=4096)
def shape(
    family: ShapeFamily,
    target_parameters: float,
    *,
    vocabulary: int,
    choices: Choices = Choices(),  # noqa: B008 - frozen
) -> ModelConfig:
    """Return the model of a family whose shape comes nearest a number of total parameters.

    It has the lowest score, see `ASPECT_WEIGHT`. A routed model's blocks are a multiple of `every`,
    so that every size routes the same share of its blocks; blocks named by index need only exist.

    Raises:
        ValueError: If `target_parameters` is not positive or above `LARGEST_PARAMETERS`, or the
            depth allows no number of blocks.
    """
    if not 0 < target_parameters <= LARGEST_PARAMETERS:
        raise ValueError(
            f"target_parameters is {target_parameters}; expected a positive number up to "
            f"{LARGEST_PARAMETERS:g}"
        )
    best, best_score = None, math.inf
    sized, counts = _sized(family, vocabulary, choices), _block_counts(family, choices)
    middle = _narrow_enough(sized, counts, target_parameters, family)
    # More blocks than that are narrower still, fewer are wider: once that alone costs more than the
    # best, none further on is better.
    for side, order in ((-1, counts[middle:]), (1, counts[:middle][::-1])):
        for blocks in order:
            widths = _widths_around(partial(sized, blocks), target_parameters, family.width_step)
            beyond = []
            for width in widths:
                model, total = sized(blocks, width)
                aspect = math.log(width / blocks / family.width_per_block)
                miss = math.log(total / target_parameters)
                score = miss**2 + ASPECT_WEIGHT * aspect**2
                if score < best_score:
                    best, best_score = model, score
                beyond.append(ASPECT_WEIGHT * max(0.0, side * aspect) ** 2)
            # Nor is one where the least width is already too narrow and too large.
            at_end = side < 0 and len(widths) == 1 and min(beyond) > 0
            if min(beyond) > best_score or at_end:
                break
    if best is None:
        raise ValueError(
            f"a model of at least {family.minimum_blocks} blocks with its routed ones has none "
            f"below {_MOST_BLOCKS:,}; expected a smaller shape.minimum_blocks, depth.every or "
            "depth.blocks"
        )
    return best


def named_shape(
    family: ShapeFamily, blocks: int, width: int, *, vocabulary: int, choices: Choices
) -> ModelConfig:
    """Return the model of a family with so many blocks and that width.

    Raises:
        ValueError: If the variant's depth has no block to route, or attention more full blocks
            than there are.
    """
    heads, group = _heads(width, family), family.queries_per_kv_head
    hidden = _at_least_one(width * family.hidden_per_width / family.hidden_step)
    return ModelConfig(
        vocabulary=vocabulary,
        width=width,
        blocks=blocks,
        heads=heads,
        kv_heads=None if group == 1 else heads // group,
        head_width=width // heads if width % (2 * heads) == 0 else family.head_width,
        hidden=hidden * family.hidden_step,
        **dict(choices),
        query_key_norm=family.query_key_norm,
        tied_embeddings=family.tied_embeddings,
    )


def _block_counts(family: ShapeFamily, choices: Choices) -> range:
    """Return the numbers of blocks that a variant allows, ascending."""
    first, step, depth = family.minimum_blocks, period(choices.own), choices.depth
    if isinstance(depth, Routed):
        if depth.blocks is None:
            step = math.lcm(step, depth.every)
        elif depth.blocks:
            first = max(first, max(depth.blocks) + 1)
    return range(math.ceil(first / step) * step, _MOST_BLOCKS, step)


def _narrow_enough(sized: Sized, counts: range, target: float, family: ShapeFamily) -> int:
    """Return about where in `counts` models of a size become as narrow as the family wants."""

    def is_narrow(blocks: int) -> bool:
        width, *_ = _widths_around(partial(sized, blocks), target, family.width_step)
        return width <= blocks * family.width_per_block

    # Doubling first, since models of many blocks take long to count.
    most = 1
    while most < len(counts) and not is_narrow(counts[most]):
        most *= 2
    return bisect.bisect_left(counts[:most], True, key=is_narrow)


@lru_cache(maxsize=64)
def _sized(family: ShapeFamily, vocabulary: int, choices: Choices) -> Sized:
    """Return what gives the model of so many blocks and that width, and its total parameters.

    It makes each once: searches for neighbouring sizes try mostly the same.
    """

    @lru_cache(maxsize=4096)
    def sized(blocks: int, width: int) -> tuple[ModelConfig, int]:
        model = named_shape(family, blocks, width, vocabulary=vocabulary, choices=choices)
        return model, parameters(model).total

    return sized


def _widths_around(
    sized: Callable[[int], tuple[ModelConfig, int]], target: float, step: int
) -> tuple[int, ...]:
    """Return the widths next below and next above a number of parameters."""

    def total(steps: int) -> int:
        return sized(steps * step)[1]

    # Doubling first keeps the widths that are tried near those that are wanted.
    most = 1
    while total(most) < target and most < _MOST_WIDTH_STEPS:
        most *= 2
    above = 1 + bisect.bisect_left(range(1, most), target, key=total)
    steps = {max(above - 1, 1), above}
    return tuple(n * step for n in sorted(steps))


def _heads(width: int, family: ShapeFamily) -> int:
    """Return the number of heads that gives an even head width nearest the family's, by ratio.

    Heads divide the width, so that attention is as wide as the stream at every size; rounded
    heads of a fixed width would make sizes a third too dear or too cheap where widths are small.
    Where no such number is near, as for widths without fitting divisors, heads are as many as
    come nearest to the width.
    """
    group = family.queries_per_kv_head
    wanted = width / family.head_width
    near = range(group, max(group, math.ceil(2 * wanted)) + 1, group)
    exact = [n for n in near if width % (2 * n) == 0 and n >= wanted / 2]
    if not exact:
        return _at_least_one(wanted / group) * group
    return min(exact, key=lambda n: abs(math.log(width / n / family.head_width)))


def _at_least_one(value: float) -> int:
    """Round half up, since rounding to even would make sizes grow unevenly."""
    return max(1, math.floor(value + 0.5))


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
    only: ModelConfig | None = None
    """The one size there is, where runs start from a checkpoint."""

    def rung(self, index: int, *, bounded: bool = True) -> ModelConfig | None:
        """Return the shape of a rung, or None beyond either end of the ladder.

        The family ends it and, unless `bounded` is false, the grid's bounds.
        """
        model = _rung(self, index)
        if model is None or not bounded:
            return model
        low, high = self._bounds
        return model if low <= parameters(model).total <= high else None

    @property
    def _bounds(self) -> tuple[float, float]:
        return self.grid.minimum_parameters or 0, self.grid.maximum_parameters or math.inf

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
                f"{self._named_bounds()} leave {last - first + 1} sizes a factor of "
                f"{self.grid.factor} apart; expected at least {wanted}: widen them or lower "
                "grid.factor"
            )
        return range(first, last + 1)

    def _inside(self) -> int:
        """Return the rung nearest the centre that is within the bounds; sizes rise with rungs."""
        index = (self.grid.sizes - 1) // 2
        low, high = self._bounds
        model = _rung(self, index)
        step = -1 if model is not None and parameters(model).total > high else 1
        while model is not None:
            total = parameters(model).total
            if low <= total <= high:
                return index
            if total < low if step < 0 else total > high:
                break
            index += step
            model = _rung(self, index)
        raise ValueError(f"{self._named_bounds()} leave no size of the family; widen them")

    def _named_bounds(self) -> str:
        return (
            f"grid.minimum_parameters = {self.grid.minimum_parameters} and "
            f"grid.maximum_parameters = {self.grid.maximum_parameters}"
        )


@lru_cache(maxsize=4096)
def _rung(ladder: Ladder, index: int) -> ModelConfig | None:
    """Return a rung, found outward from the centre so that it does not depend on the others."""
    if ladder.only is not None:
        return ladder.only if index == 0 else None
    family, factor, sizes = ladder.family, ladder.grid.factor, ladder.grid.sizes
    nearest = partial(shape, family, vocabulary=ladder.vocabulary, choices=ladder.choices)
    target = ladder.centre_parameters * factor ** (index - (sizes - 1) / 2)
    pivot = (sizes - 1) // 2
    if index == pivot:
        return nearest(target)
    upwards = index > pivot
    inner = _rung(ladder, index - 1 if upwards else index + 1)
    if inner is None:
        return None
    # Neighbours stay at least half a rung apart, so that they are distinct sizes.
    bound = parameters(inner).total * factor ** (0.5 if upwards else -0.5)
    fewest = _block_counts(family, ladder.choices)[0]
    while target <= LARGEST_PARAMETERS:
        model = nearest(target)
        total = parameters(model).total
        if (upwards and total >= bound) or (not upwards and total <= bound):
            return model
        if not upwards and (model.blocks, model.width) == (fewest, family.width_step):
            return None
        target *= factor ** (0.25 if upwards else -0.25)
    return None
