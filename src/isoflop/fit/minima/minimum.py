"""The minimum of a curve of loss over parameters, and when it must not be said.

An estimator of one budget's curve is a file of this folder with a `CurveEstimator`, and a line in
`isoflop.fit.minima` that registers it. What looks at all budgets is in `isoflop.fit.surfaces`.

Axes: P runs, S sizes, R noisy copies of the runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
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
    find: Callable[[ArrayLike, ArrayLike], Minimum]
    """The minimum of runs: their parameters and losses, (P,) each."""
    find_in_copies: Callable[[Floats, Floats], tuple[Floats, Floats]]
    """Log size and loss (R,) at the minima of copies of the runs: parameters (P,), losses (R, P).

    Where a copy's minimum is refused its loss is NaN. Its size is that of the end where it lies, or
    else NaN: to leave such copies out would cut off a tail."""


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
    side: Literal["smaller", "larger"] = "smaller" if best == 0 else "larger"
    return Minimum(
        estimator=estimator,
        status="edge",
        side=side,
        message=f"the lowest loss is at an end of the sizes measured, {sizes[best]:,.0f} "
        f"parameters; measure {side} ones",
    )


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


def copy_ends(sizes: Floats, best: NDArray[np.intp]) -> Floats:
    """Return the log size of copies (R,) whose lowest size is the first or the last, else NaN."""
    at_end = (best == 0) | (best == len(sizes) - 1)
    return np.where(at_end, np.log(sizes)[best], np.nan)
