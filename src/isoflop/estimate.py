"""A value and how sure it is: what fits, evaluations and predictions all tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import Field

from isoflop.frozen import Frozen, left_out
from isoflop.notation import written

LEVEL = 0.95
NONE = "-"
"""What stands in a table where there is no value."""


class Estimate(Frozen):
    """A value and the interval that holds it with probability `level`.

    An end is missing where nothing tells it, or where there is none. JSON always has the value and
    the ends, and the rest where it is known.
    """

    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = Field(default=None, gt=0, lt=1, exclude_if=left_out)
    resamples: int | None = Field(default=None, exclude_if=left_out)
    """Resamples that gave a value, where it comes from a bootstrap."""
    refused: int | None = Field(default=None, exclude_if=left_out)
    """Resamples in which the statistic had no value, such as a minimum at an edge."""
    looks_from: int | None = Field(default=None, exclude_if=left_out)
    """Seeds after which one looked first, and then after each: the interval holds at every look."""

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends.

        Raises:
            ValueError: one of them is missing.
        """
        if self.low is None or self.high is None:
            raise ValueError(f"{self.value:g} has no interval: an end is missing")
        return self.low, self.high

    @property
    def side(self) -> int:
        """-1 where the interval lies below zero, 1 above, 0 where it holds zero."""
        low, high = self.ends
        return -1 if high < 0 else 1 if low > 0 else 0

    def words(self, form: str | Callable[[float], str] = ".4f") -> str:
        """Return `value [low, high]`; the value alone without a lower end."""
        return f"{written(self.value, form)} {self.interval_words(form)}".rstrip()

    def interval_words(self, form: str | Callable[[float], str] = ".4f") -> str:
        """Return `[low, high]`, where an upper end that is missing is `no end`; nothing without."""
        if self.low is None:
            return ""
        high = "no end" if self.high is None else written(self.high, form)
        return f"[{written(self.low, form)}, {high}]"


class SeedNoise(Frozen):
    """How far seeds move the losses of runs near their minima, nats per token, as standard
    deviations pooled over variants and budgets.

    Of two runs of one size with different seeds: a part that all runs of a seed share, of both
    variants; a part that those of one variant share; and a part of each run's own.
    """

    spread: float
    """Of one run, all three parts together."""
    variants: Mapping[str, float]
    """The same of each variant."""
    own_spread: float
    apart_spread: float
    """Of what a seed adds to all runs of one variant."""
    shared_spread: float
    """Of what it adds to both alike, which cancels where seeds are paired."""
    correlation: float | None
    """Of paired minima over seeds; None where no two variants share seeds."""
    curvature: float
    """Loss over the square of log parameters, about the minimum."""
    runs: int
    """Runs that tell this."""


class Power(Frozen):
    """What difference of two minima a study is expected to resolve, at 95% in 80% of studies.

    Losses on a parabola, normal noise as recorded, seeds paired, one comparison.
    """

    seeds: int
    """Of each variant, at most."""
    looks_from: int | None
    """Seeds at the first look, where they are added until the variants are resolved."""
    resolves: float | None
    """The smallest such difference, nats per token; None where minima have no interval."""
    half_width: float | None
    """Median of the interval's."""
    margin: float
    """Difference to be resolved, nats per token: the one declared, or 0.01."""
    margin_seeds: int | None
    """Seeds that would resolve it at one look; None where a thousand would not."""
    noise: SeedNoise
    source: str
    """Whose runs the noise is of."""


def estimate_words(
    one: Estimate | None, form: str | Callable[[float], str] = ".4f", none: str = NONE
) -> str:
    """Return an estimate as `Estimate.words` does, a dash where there is none."""
    return none if one is None else one.words(form)
