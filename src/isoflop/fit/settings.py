"""What a fit is asked for, once for every room."""

from __future__ import annotations

from dataclasses import dataclass

from isoflop.estimate import LEVEL
from isoflop.fit.curves import ESTIMATORS
from isoflop.fit.huber import HUBER_DELTA
from isoflop.fit.minimum import Estimator
from isoflop.fit.resampling import RESAMPLES


@dataclass(frozen=True)
class FitSettings:
    """How a table of runs is fitted.

    Raises:
        ValueError: a value is out of its range.
    """

    estimators: tuple[Estimator, ...] = ESTIMATORS
    """Of the minima; surfaces are fitted where they are among them."""
    delta: float = HUBER_DELTA
    """Of the Huber loss on log loss."""
    level: float = LEVEL
    """Probability that intervals are to hold."""
    resamples: int = RESAMPLES
    """Copies of the runs behind each interval."""
    seed: int = 0
    """Of these copies."""
    equal_exponents: bool = False
    """Whether surfaces have alpha = beta."""
    cluster: str | None = None
    """Column of the table; runs that share its value share some noise."""

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level:g}; expected a probability between 0 and 1")
        if self.resamples < 20:
            raise ValueError(f"resamples is {self.resamples}; expected at least 20")
        if not self.delta > 0:
            raise ValueError(f"delta is {self.delta:g}; expected a positive number")
