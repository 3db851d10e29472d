"""The minimum of a curve of loss over parameters, and when it must not be said.

An estimator of one budget's curve is a file of this folder with a `CurveEstimator`, and a line in
`isoflop.fit.minima` that registers it. What looks at all budgets is in `isoflop.fit.surfaces`.

Axes: P runs, S sizes, R noisy copies of the runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.settings import Estimator

Status = Literal[
    "converged",
    "edge",
    "concave",
    "too_few",
    "at_bound",
    "ill_conditioned",
    "not_converged",
    "outside",
    "scattered",
]
"""How a fit ended. Whatever a caller may use is `converged`; the rest say why not. `outside`: the
minimum's loss lies far outside the losses measured. `scattered`: the runs of a budget differ in
compute, and nothing tells how much loss that makes."""

MANY_SIZES = 5
"""Sizes from which a slope rests on two neighbours to either side, and a median tells a level."""
BELOW_LOWEST = 0.5
"""How far below the lowest size a minimum may lie, over the range of the curve's losses."""


class Minimum(Frozen):
    """The minimum of loss over parameters at one budget, or why there is none."""

    estimator: Estimator
    status: Status
    message: str
    parameters: float | None = None
    loss: float | None = None
    """Nats per token. Both are None unless `status` is `converged`."""
    side: Literal["smaller", "larger"] | None = None
    """For `edge`: where sizes are missing."""


@dataclass(frozen=True)
class CurveEstimator:
    """How the minimum of one budget's curve is found."""

    name: Estimator
    words: str
    """What a person reads."""
    needed: int
    """Fewest sizes of a curve."""
    lowest: Callable[[Floats, Floats], tuple[Floats, Floats]]
    """Log size and loss (R,) at the lowest points of curves through runs, whose lowest size is an
    inner one: parameters (P,), losses (R, P). The loss of a curve without a minimum is NaN, and its
    size that of the end where it is lowest, or NaN where it opens downwards."""
    through: Callable[[Floats, int], str]
    """What a curve goes through, in words: by its sizes (S,), and which of them is lowest."""

    def find(self, parameters: ArrayLike, losses: ArrayLike) -> Minimum:
        """Return the minimum of runs by their parameters and losses, (P,) each.

        Refused: too few sizes, a lowest measured size at an end, a curve without a minimum within
        the sizes, a loss far outside those measured.
        """
        sizes, means = size_means(parameters, losses)
        refusal = refused(self.name, sizes, means, self.needed)
        if refusal is not None:
            return refusal
        n, y = (np.asarray(one, dtype=np.float64) for one in (parameters, losses))
        log_size, loss = (float(one[0]) for one in self.lowest(n, y[None]))
        best = int(np.argmin(means))
        if math.isnan(log_size):
            message = f"the {self.words} opens downwards"
            return Minimum(estimator=self.name, status="concave", message=message)
        if math.isnan(loss):
            where = f"the {self.words} is lowest at or beyond an end of the sizes it goes through"
            return at_edge(self.name, where, smaller=log_size < math.log(sizes[best]))
        found = Minimum(
            estimator=self.name,
            status="converged",
            parameters=math.exp(log_size),
            loss=loss,
            message=self.through(sizes, best),
        )
        return refused_outside(found, means)

    def find_in_copies(self, parameters: ArrayLike, losses: Floats) -> tuple[Floats, Floats]:
        """Return log size and loss (R,) at the minima of copies of the runs, losses (R, P).

        Where a copy's minimum is refused its loss is NaN. Its size is that of the end where it
        lies, or else NaN: to leave such copies out would cut off a tail.
        """
        sizes, means = size_means(parameters, losses)
        log_sizes, lowest = np.full((2, len(losses)), math.nan)
        if len(sizes) < self.needed:
            return log_sizes, lowest
        best = means.argmin(axis=1)
        inner = (best > 0) & (best < len(sizes) - 1)
        log_sizes[~inner] = np.log(sizes)[best[~inner]]
        if inner.any():
            n = np.asarray(parameters, dtype=np.float64)
            log_sizes[inner], lowest[inner] = self.lowest(n, losses[inner])
        return log_sizes, np.where(within(lowest, means), lowest, math.nan)


def refused(estimator: Estimator, sizes: Floats, means: Floats, needed: int) -> Minimum | None:
    """Return the refusal of a curve of too few sizes, or with the lowest loss at an end of them."""
    if len(sizes) < needed:
        return Minimum(
            estimator=estimator,
            status="too_few",
            message=f"{len(sizes)} size{'s' * (len(sizes) != 1)} measured, {needed} needed",
        )
    best = int(np.argmin(means))
    if 0 < best < len(sizes) - 1:
        return None
    where = f"the lowest loss is at an end of the sizes measured, {sizes[best]:,.0f} parameters"
    return at_edge(estimator, where, smaller=best == 0)


def at_edge(estimator: Estimator, where: str, *, smaller: bool) -> Minimum:
    """Return the refusal of a minimum at an end of the sizes, and on which side to measure more."""
    side: Literal["smaller", "larger"] = "smaller" if smaller else "larger"
    message = f"{where}; measure {side} ones"
    return Minimum(estimator=estimator, status="edge", side=side, message=message)


def within(losses: ArrayLike, means: ArrayLike, slack: float = 0.0) -> NDArray[np.bool_]:
    """Return whether minima (...) have losses that curves with these means (..., S) may have.

    Up to half of what a curve's sizes differ by below the lowest of them: a parabola lies at most
    an eighth below, where the minimum is half way between two of its sizes. Of five and more sizes,
    also no more than the middle one is above the lowest: a diverged run widens the range. Since
    runs scatter, a minimum may lie further out by `slack`.
    """
    measured = np.asarray(means, dtype=np.float64)
    lowest, highest = measured.min(axis=-1), measured.max(axis=-1)
    below = BELOW_LOWEST * (highest - lowest)
    if measured.shape[-1] >= MANY_SIZES:
        below = np.minimum(below, np.median(measured, axis=-1) - lowest)
    return np.asarray((lowest - below - slack <= losses) & (losses <= highest + slack))


def refused_outside(minimum: Minimum, means: Floats, slack: float = 0.0) -> Minimum:
    """Return a minimum that has a loss, or its refusal where that is not `within` the means."""
    assert minimum.loss is not None
    if within(minimum.loss, means, slack):
        return minimum
    return Minimum(
        estimator=minimum.estimator,
        status="outside",
        message=f"its loss would be {minimum.loss:.4f}, far outside the losses measured at this "
        f"budget, {means.min():.4f} to {means.max():.4f}",
    )
