"""What a fit is asked for, once for every room."""

from __future__ import annotations

from dataclasses import dataclass, replace

from isoflop.config import Study
from isoflop.estimate import LEVEL

Estimator = str
"""Name of an estimator of minima: `isoflop.fit.ESTIMATORS` has those that there are."""
HUBER_DELTA = 1e-3
RESAMPLES = 1000


@dataclass(frozen=True)
class FitSettings:
    """How a table of runs is fitted, and its variants compared.

    Raises:
        ValueError: a value is out of its range.
    """

    estimators: tuple[Estimator, ...] | None = None
    """Of the minima, all if left out; surfaces are fitted where they are among them."""
    delta: float = HUBER_DELTA
    """Of the Huber loss on log loss."""
    level: float = LEVEL
    """Probability that intervals are to hold."""
    resamples: int = RESAMPLES
    """Copies of the runs behind each interval."""
    seed: int = 0
    """Of these copies."""
    equal_exponents: bool = False
    """Whether surfaces have alpha = beta (arXiv 2403.08540), for runs at fixed tokens per
    parameter."""
    cluster: str | None = None
    """Column of the table; runs of a variant that share its value share some noise, and are
    resampled together in the intervals of the surfaces."""
    margin: float | None = None
    """Difference of loss that counts as none, declared before runs were seen, nats per token."""
    declared_seeds: tuple[int, ...] = ()
    """Seeds after which one looked first, where others were added until variants were resolved:
    intervals of differences then hold at every look."""

    def of_study(self, study: Study) -> FitSettings:
        """Return them with the margin that a study declares, if they have none, and its seeds."""
        declared = study.seeds if study.until_resolved else ()
        margin = self.margin or study.margin
        return replace(self, margin=margin, declared_seeds=declared)

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level:g}; expected a probability between 0 and 1")
        if self.resamples < 20:
            raise ValueError(f"resamples is {self.resamples}; expected at least 20")
        if not self.delta > 0:
            raise ValueError(f"delta is {self.delta:g}; expected a positive number")
        if self.margin is not None and not self.margin > 0:
            raise ValueError(f"margin is {self.margin:g}; expected a positive difference of loss")


USUAL = FitSettings()
