"""What trials around a centre tell of each setting: its best value, or that it does not matter.

Trials lie on a star: each differs from the centre in one setting at most. Of the second-order
surface over the logs z of settings (Box and Wilson 1951) they then see

    loss = seed + sum over settings of b z + c z^2

alone: products of two settings are zero at every one of them, so that leaving these out biases
nothing. A centre that is best along every axis is stationary, whatever the products, which is why
a search moves its centre until it is. Seeds are blocks: what all trials of one share cancels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from isoflop.config import Frozen, Setting
from isoflop.estimate import LEVEL, Estimate, estimate_words
from isoflop.fit.intervals import Floats, WithError


@dataclass(frozen=True)
class Observation:
    """A trial that finished."""

    seed: int
    setting: str | None
    """Which differs from the centre's; None at the centre."""
    z: float
    """Log of its value over the centre's."""
    loss: float


class Star:
    """Least squares over the trials of a star, of settings with two values beside the centre's."""

    def __init__(self, trials: Collection[Observation]) -> None:
        finite = [one for one in trials if math.isfinite(one.loss)]
        tried = Counter(setting for setting, _ in {(one.setting, one.z) for one in finite})
        names = dict.fromkeys(one.setting for one in finite)
        self.settings = [name for name in names if name is not None and tried[name] > 1]
        used = [one for one in finite if one.setting is None or one.setting in self.settings]
        seeds = sorted({one.seed for one in used})
        self._first = len(seeds)
        design = np.zeros((len(used), len(seeds) + 2 * len(self.settings)))
        for row, one in zip(design, used, strict=True):
            row[seeds.index(one.seed)] = 1.0
            if one.setting is not None:
                row[self._place(one.setting)] = one.z, one.z**2
        losses = np.array([one.loss for one in used])
        inverse = np.linalg.pinv(design.T @ design)
        self._found = inverse @ design.T @ losses
        self.degrees_of_freedom = len(used) - (int(np.linalg.matrix_rank(design)) if used else 0)
        left = losses - design @ self._found
        self.spread = math.sqrt(float(left @ left) / max(1, self.degrees_of_freedom))
        """Standard deviation of one trial, what its seed shares with others left aside."""
        self._covariance: Floats = np.asarray(inverse * self.spread**2, dtype=np.float64)

    def best(self, setting: str) -> Estimate | None:
        """Return log of the best value over the centre's, with Fieller's interval.

        None where the bend is not surely upward, so that no finite interval holds it.
        """
        if setting not in self.settings or self.degrees_of_freedom < 1:
            return None
        at = self._place(setting)
        (b, c), cov = self._found[at], self._covariance[at, at]
        t2 = float(special.stdtrit(self.degrees_of_freedom, (1 + LEVEL) / 2)) ** 2
        # Those z whose slope b + 2 c z is zero within its error.
        square = 4 * (c**2 - t2 * cov[1, 1])
        if c <= 0 or square <= 0:
            return None
        linear, constant = 4 * (b * c - t2 * cov[0, 1]), b**2 - t2 * cov[0, 0]
        half = math.sqrt(max(0.0, linear**2 - 4 * square * constant)) / (2 * square)
        low, high = (-linear / (2 * square) + side * half for side in (-1, 1))
        return Estimate(value=-b / (2 * c), low=low, high=high, level=LEVEL)

    def change(self, setting: str, z: float, other: float = 0.0) -> WithError | None:
        """Return by how much the loss at `z` is above that at `other`; None where nothing tells."""
        if setting not in self.settings or self.degrees_of_freedom < 1:
            return None
        at, way = self._place(setting), np.array([z - other, z**2 - other**2])
        variance = float(way @ self._covariance[at, at] @ way)
        return WithError(
            value=float(way @ self._found[at]),
            error=math.sqrt(max(0.0, variance)),
            degrees_of_freedom=self.degrees_of_freedom,
        )

    def moves(self, setting: str, tried: Sequence[float]) -> float | None:
        """Return what the loss moves by at most from the centre to any of these, surely."""
        found = [self.change(setting, z) for z in tried]
        ends = [one.interval().ends for one in found if one is not None]
        return max((abs(end) for both in ends for end in both), default=None)

    def _place(self, setting: str) -> slice:
        at = self._first + 2 * self.settings.index(setting)
        return slice(at, at + 2)


Standing = Literal["inside", "flat", "end", "unsure"]
"""Of a setting: its best value's interval lies inside the values tried; it does not matter; it is
best at an end beyond which nothing can be tried; nothing of these yet."""


def plain(value: float) -> str:
    """Return a setting's value without powers of ten where it is large."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class FoundSetting(Frozen):
    """What the trials of one variant at one budget tell of a setting."""

    setting: Setting
    standing: Standing
    low: float
    """Lowest value tried."""
    high: float
    best: Estimate | None
    """None where the bend is not sure."""
    chosen: float
    """What to write: the best value, or the centre's."""
    moves_nats: float | None
    """What the loss moves by at most over the values tried, surely."""

    @property
    def words(self) -> str:
        """The best value with its interval, or what is known in its place."""
        tried = f"{plain(self.low)} to {plain(self.high)}"
        match self.standing:
            case "inside":
                return estimate_words(self.best, plain)
            case "flat":
                return f"any of {tried} within {self.moves_nats:.4f}"
            case "end":
                return f"{plain(self.chosen)}, at an end of {tried}"
            case _:
                return f"unsure in {tried}"


class FoundRecipe(Frozen):
    """What the trials of one variant at one budget tell."""

    variant: str
    budget_flops: float
    settings: tuple[FoundSetting, ...]
    trials: int
    seeds: int
    """Of the centre."""
    spread: float | None
    """Standard deviation of a trial beside what trials of its seed share, nats per token."""


class SettingLaw(Frozen):
    """A setting of a variant over the budget C: value * (C / the study's first budget)^exponent."""

    variant: str
    setting: Setting
    value: float
    exponent: Estimate
    budgets: int


class SearchResult(Frozen):
    """What a search found so far."""

    recipes: tuple[FoundRecipe, ...]
    laws: tuple[SettingLaw, ...]
    trials: dict[str, int]
    """Runs that were asked for so far, by variant."""
    finished: dict[str, int]
    """How many of these have a loss: those that diverged or failed have none."""
    missing: int
    """Trials that it needs now and that have no record."""


def setting_law(best: Mapping[float, Estimate], first: float) -> tuple[float, Estimate] | None:
    """Return a setting at the budget `first` and its exponent, by best values at several budgets.

    A line through the logs, each weighted by its interval, whose ends are taken to be as likely as
    those of the exponent are to be. None with fewer than two budgets that have an interval.
    """
    known = {budget: one for budget, one in best.items() if one.low and one.high}
    if len(known) < 2:
        return None
    x = np.log(np.array(list(known)) / first)
    y = np.log([one.value for one in known.values()])
    half = np.array([math.log(one.ends[1] / one.ends[0]) / 2 for one in known.values()])
    weight = 1 / np.maximum(half, 1e-9) ** 2
    middle = float(weight @ x / weight.sum())
    squares = float(weight @ (x - middle) ** 2)
    slope = float((weight * (x - middle)) @ y) / squares
    at_first = math.exp(float(weight @ y / weight.sum()) - slope * middle)
    reach = 1 / math.sqrt(squares)
    return at_first, Estimate(value=slope, low=slope - reach, high=slope + reach, level=LEVEL)
