"""What a fit of a table of runs finds, as values that can be written down."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.compare.surfaces import SurfaceComparison
from isoflop.fit.compare.verdict import BudgetVerdict
from isoflop.fit.curves.minima import CurveMinimum, MinimumDisagreement
from isoflop.fit.laws.envelope import EnvelopeFit
from isoflop.fit.laws.optima import FittedLaw
from isoflop.fit.minima.draws import RunNoise
from isoflop.fit.surfaces.bootstrap import DrawsSource
from isoflop.fit.surfaces.goodness import RunMiss, SurfaceDisagreement
from isoflop.fit.surfaces.surface import Surface, SurfaceFit


class FittedSurface(SurfaceFit):
    """L = E + A / N^alpha + B / D^beta, and the exponents of the optimum, N ~ C^a and D ~ C^b.

    Where FLOPs per token are N^s, a is beta / (alpha + s beta) and b is 1 - s a.
    """

    surface: Surface | None = Field(default=None, exclude=True)
    """Told with intervals by what follows, where it is to be quoted."""
    E: Estimate | None = None
    A: Estimate | None = None
    B: Estimate | None = None
    alpha: Estimate | None = None
    beta: Estimate | None = None
    a: Estimate | None = None
    b: Estimate | None = None
    profiles: Mapping[str, Estimate] = {}
    """Of the unknowns, intervals by profile of the objective; none where they are not quoted."""
    rms_residual: float | None = None
    """Root mean square of fitted less measured loss, nats per token."""
    largest_miss: RunMiss | None = None
    """The run that it misses by most, in log loss."""
    warning: str | None = None
    """Why it does not describe its runs, though the fit ended well."""
    source: DrawsSource | None = None
    """What the intervals rest on."""
    delta_sensitivity: Mapping[str, Surface] = {}
    """The surface for other deltas, where that converged: other ways to weigh runs far off."""


class VariantFit(Frozen):
    """All fits of one variant."""

    runs: int
    minima: tuple[CurveMinimum, ...]
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

    @property
    def surfaces(self) -> tuple[FittedSurface, ...]:
        """Those that were asked for, the Huber surface first."""
        return tuple(one for one in (self.surface, self.variable_projection) if one is not None)


class FitResult(Frozen):
    """What `isoflop fit` finds."""

    variants: Mapping[str, VariantFit]
    verdicts: tuple[BudgetVerdict, ...] = ()
    """Every other variant against the baseline at every budget; empty for one variant."""
    surface_comparisons: tuple[SurfaceComparison, ...] = ()
    """Every other variant against the baseline on their surfaces, which needs no budget that both
    were trained at."""
    baseline: str | None = None
    level: float
    resamples: int
    """Copies of the runs behind each interval."""
    seed: int
    """Of these copies."""
    loss_unit: str | None = None
    """What losses are in, where that is known."""

    @property
    def minima(self) -> tuple[CurveMinimum, ...]:
        """The minimum of each variant at each budget by each estimator, refusals too."""
        return tuple(
            # A minimum that was read from JSON has its variant's name from where it stood.
            one.model_copy(update={"variant": name})
            for name, fit in self.variants.items()
            for one in fit.minima
        )
