"""From a wanted number of parameters to a shape: blocks, width, heads and feed-forward."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Iterator
from functools import lru_cache

from isoflop.config import Choices, Depth, ModelConfig, Routed, ShapeFamily
from isoflop.config.study import LARGEST_PARAMETERS
from isoflop.costs import parameters

ASPECT_WEIGHT = 0.1
"""How much a missed ratio of width to blocks weighs against missed parameters.

A shape's score is log(N / target)^2 + 0.1 log(aspect / wanted)^2: 10% of parameters are given
for an aspect that is nearer by a factor of about 1.4. Fits use the parameters a model really has,
so missing the target a little costs nothing, while shapes that jump between deep and wide scatter
the losses.
"""

_MOST_WIDTH_STEPS = 65_536
_MOST_BLOCKS = 10_000

_OfShape = Callable[[int, int], ModelConfig]
"""A model from its blocks and its width, everything else being settled."""


@lru_cache(maxsize=4096)
def shape(
    family: ShapeFamily,
    target_parameters: float,
    *,
    vocabulary: int,
    choices: Choices = Choices(),  # noqa: B008 - frozen
) -> ModelConfig:
    """Return the model of a family whose shape comes nearest a number of parameters.

    Args:
        family: How blocks, width, heads and feed-forward relate.
        target_parameters: Wanted total parameters.
        vocabulary: V.
        choices: The variant's. A routed model's blocks are a multiple of `every`, so that every
            size routes the same share of its blocks; blocks named by index need only exist.

    Returns:
        The model with the lowest score, see `ASPECT_WEIGHT`. Heads divide the width, so the head
        width is the even number nearest the family's that allows it.

    Raises:
        ValueError: If `target_parameters` is not positive or above `LARGEST_PARAMETERS`, or the
            depth allows no number of blocks.
    """
    if not 0 < target_parameters <= LARGEST_PARAMETERS:
        raise ValueError(
            f"target_parameters is {target_parameters}; expected a positive number up to "
            f"{LARGEST_PARAMETERS:g}"
        )
    of_shape = _builder(family, vocabulary, choices)
    best, best_score = None, math.inf
    for blocks in _block_counts(family, choices.depth):
        widths = _widths_around(of_shape, blocks, target_parameters, family.width_step)
        too_narrow = []
        for width in widths:
            model = of_shape(blocks, width)
            aspect = math.log(width / blocks / family.width_per_block)
            miss = math.log(parameters(model).total / target_parameters)
            score = miss**2 + ASPECT_WEIGHT * aspect**2
            if score < best_score:
                best, best_score = model, score
            too_narrow.append(ASPECT_WEIGHT * aspect**2 if aspect < 0 else 0)
        # More blocks are narrower still: once that alone costs more than the best, none is better.
        # Nor is one where the least width is already too narrow and too large.
        if min(too_narrow) > best_score or (len(widths) == 1 and min(too_narrow) > 0):
            break
    if best is None:
        raise ValueError(
            f"a model of at least {family.minimum_blocks} blocks with its routed ones has none "
            f"below {_MOST_BLOCKS:,}; expected a smaller shape.minimum_blocks, depth.every or "
            "depth.blocks"
        )
    return best


def named_shape(
    family: ShapeFamily,
    blocks: int,
    width: int,
    *,
    vocabulary: int,
    choices: Choices = Choices(),  # noqa: B008 - frozen
) -> ModelConfig:
    """Return the model of a family with so many blocks and that width.

    Heads and feed-forward are the family's; see `shape` for the other arguments.

    Raises:
        ValueError: If the variant's depth has no block to route, or attention more full blocks
            than there are.
    """
    return _builder(family, vocabulary, choices)(blocks, width)


def smallest_shape(
    family: ShapeFamily,
    *,
    vocabulary: int,
    choices: Choices,
) -> ModelConfig:
    """Return the smallest model of a family: fewest blocks, one step of width."""
    of_shape = _builder(family, vocabulary, choices)
    return of_shape(next(_block_counts(family, choices.depth)), family.width_step)


def _builder(
    family: ShapeFamily,
    vocabulary: int,
    choices: Choices,
) -> _OfShape:
    group = family.queries_per_kv_head

    def of_shape(blocks: int, width: int) -> ModelConfig:
        heads = _heads(width, family)
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

    return of_shape


def _block_counts(family: ShapeFamily, depth: Depth) -> Iterator[int]:
    """Yield the numbers of blocks that a depth allows, ascending."""
    first, step = family.minimum_blocks, 1
    if isinstance(depth, Routed):
        if depth.blocks is None:
            step = depth.every
            first = math.ceil(first / step) * step
        elif depth.blocks:
            first = max(first, max(depth.blocks) + 1)
    return iter(range(first, _MOST_BLOCKS, step))


def _widths_around(of_shape: _OfShape, blocks: int, target: float, step: int) -> tuple[int, ...]:
    """Return the widths next below and next above a number of parameters."""

    def total(steps: int) -> int:
        return parameters(of_shape(blocks, steps * step)).total

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
