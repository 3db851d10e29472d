"""What a fit of a table of runs finds, as values that can be written down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.compare.surfaces import SurfaceComparison
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import CurveMinimum, MinimumDisagreement
from isoflop.fit.laws.envelope import EnvelopeFit
from isoflop.fit.laws.optima import FittedLaw
from isoflop.fit.minima.minimum import Minimum, Status
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.bootstrap import DrawsSource
from isoflop.fit.surfaces.goodness import RunMiss, SurfaceDisagreement
from isoflop.fit.surfaces.surface import Surface

IntervalSource = Literal["seeds", "scatter", "surface", "systematic"] | DrawsSource
"""What an interval rests on. Of one curve: noise between seeds, about the parabola, or about the
surface; or, where nothing tells the noise, what the estimator gets wrong without it, alone. Of the
surface: residuals under random signs, one for each run or cluster, or the limit of many runs."""


class MinimumInterval(Frozen):
    """Interval of a minimum's loss (`low`, `high`) and of its size: noise, and what is systematic.

    Of the parabola and Akima it is wider by their systematic error, on either side.
    """

    low: float
    high: float
    parameters_low: float
    parameters_high: float
    level: float
    source: IntervalSource
    refused: int
    """Copies of the curve without a minimum, of those drawn."""
    systematic: float = 0.0
    """By how much the loss is wider on either side: what the estimator gets wrong without noise."""
    systematic_ratio: float = 1.0
    """By what factor the size is."""


class FittedMinimum(Minimum):
    """The minimum of one curve by one estimator, with its interval."""

    budget_flops: float
    tokens: float | None = None
    forward_flops: float | None = None
    """Per token at the minimum."""
    interval: MinimumInterval | None = None
    reason: str | None = None
    """Why a converged minimum has no interval."""

    def of_curve(self, variant: str) -> CurveMinimum:
        """Return it as `minima` does."""
        return CurveMinimum(
            variant=variant,
            budget_flops=self.budget_flops,
            minimum=Minimum(**{name: getattr(self, name) for name in Minimum.model_fields}),
            forward_flops=self.forward_flops,
            tokens=self.tokens,
        )


class FittedSurface(Frozen):
    """L = E + A / N^alpha + B / D^beta, and the exponents of the optimum, N ~ C^a and D ~ C^b.

    Where FLOPs per token are N^s, a is beta / (alpha + s beta) and b is 1 - s a.
    """

    estimator: Estimator
    status: Status
    message: str
    points: int
    E: Estimate | None = None
    A: Estimate | None = None
    B: Estimate | None = None
    alpha: Estimate | None = None
    beta: Estimate | None = None
    a: Estimate | None = None
    b: Estimate | None = None
    profiles: Mapping[str, Estimate] = {}
    """Of the unknowns, intervals by profile of the objective; none where they are not quoted."""
    condition: float | None = None
    residual: float | None = None
    """Root mean square of log fitted loss - log loss."""
    rms_residual: float | None = None
    """Root mean square of fitted less measured loss, nats per token."""
    largest_miss: RunMiss | None = None
    """The run that it misses by most, in log loss."""
    warning: str | None = None
    """Why it does not describe its runs, though the fit ended well."""
    source: DrawsSource | None = None
    """What the intervals rest on."""
    equal_exponents: bool = False
    """Whether alpha and beta were held equal."""
    delta: float | None = None
    """Of the Huber loss."""
    delta_sensitivity: Mapping[str, Surface] = {}
    """The surface for other deltas, where that converged: other ways to weigh runs far off."""


class VariantFit(Frozen):
    """All fits of one variant."""

    runs: int
    minima: tuple[FittedMinimum, ...]
    surface: FittedSurface | None = None
    """Approach 3: Huber on log loss. None, as the next one, where it was not asked for."""
    variable_projection: FittedSurface | None = None
    laws: tuple[FittedLaw, ...]
    envelope: EnvelopeFit | None = None
    """Approach 1; None where no run has a training curve."""
    noise: Mapping[str, RunNoise]
    """How far runs scatter, by budget."""
    minimum_disagreements: tuple[MinimumDisagreement, ...] = ()
    """How far estimators are apart, of each budget at which two or more converged."""
    surface_disagreement: SurfaceDisagreement | None = None
    """The same of the surface, by both estimators and every delta; None for fewer than two."""
    notes: tuple[str, ...] = ()
    """What was done to the runs on the way, and what the fits leave out, a sentence each."""


class FitResult(Frozen):
    """What `isoflop fit` finds."""

    variants: Mapping[str, VariantFit]
    verdicts: tuple[BudgetVerdict, ...]
    """Every other variant against the baseline at every budget; empty for one variant."""
    surface_comparisons: tuple[SurfaceComparison, ...] = ()
    """Every other variant against the baseline on their surfaces, which needs no budget that both
    were trained at."""
    baseline: str | None
    level: float
    resamples: int
    """Copies of the runs behind each interval."""
    seed: int
    """Of these copies."""
    loss_unit: str | None = None
    """What losses are in, where that is known."""

    def curve_minima(self) -> tuple[CurveMinimum, ...]:
        """Return the minimum of each variant at each budget by each estimator, refusals too."""
        return tuple(
            one.of_curve(name) for name, fit in self.variants.items() for one in fit.minima
        )
