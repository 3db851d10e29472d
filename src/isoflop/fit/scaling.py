"""Loss against compute at named sizes: projections L = a C^b, and gaps between variants.

Losses may be told apart by position in the window (arXiv 2502.13189, section 3.1). Compute is in
PFLOP/s-days, by one of two countings.
"""

from __future__ import annotations

from typing import Literal

from isoflop.config import Frozen
from isoflop.fit.interval import Coefficient, Interval
from isoflop.fit.minimum import Status
from isoflop.fit.verdict import Outcome

PFLOPS_DAY = 8.64e19
"""FLOPs of 1 PFLOP/s-day."""

Axis = Literal["6nd", "causal"]
"""How compute is counted: 6 N D as published, or exactly; see `isoflop.costs`."""


class SizeLoss(Frozen):
    """Mean loss of one variant at one size in a span of positions."""

    variant: str
    non_embedding: int
    """N, parameters without embeddings."""
    compute: dict[Axis, float]
    """Training compute in PFLOP/s-days by each counting."""
    start: int
    stop: int
    """Positions from `start` up to but not including `stop`."""
    loss: Interval
    """Mean over seeds; its interval holds what other documents and, from two seeds on, other seeds
    would give."""
    seeds: tuple[int, ...]
    documents: int
    windows: int
    """Windows of these documents that reach the span's end."""
    tokens: int


class Projection(Frozen):
    """L = a C^b of one variant in a span of positions, or why there is none."""

    variant: str
    start: int
    stop: int
    axis: Axis
    status: Status
    message: str
    a: Coefficient | None = None
    """Loss at 1 PFLOP/s-day."""
    b: Coefficient | None = None
    sizes: int
    log_residual: float | None = None
    """Standard deviation of log loss about the line."""

    def at(self, compute: float) -> float:
        """Return the loss at `compute` PFLOP/s-days.

        Raises:
            ValueError: the fit was refused.
        """
        if self.a is None or self.b is None:
            raise ValueError(f"there is no projection to evaluate: {self.message}")
        return float(self.a.value * compute**self.b.value)


class SpanGap(Frozen):
    """A variant's loss less the baseline's in a span of positions, by the same runs' seeds."""

    variant: str
    baseline: str
    start: int
    stop: int
    non_embedding: int | None
    """The size; None for the mean over all sizes."""
    difference: Interval | None = None
    """Nats per token; negative is better. None where the reason tells why."""
    seed_error: float | None = None
    """Standard error that other seeds would give."""
    document_error: float | None = None
    """Standard error that other documents would give."""
    pairs: int = 0
    """Pairs of runs with the same size and seed."""
    documents: int = 0
    windows: int = 0
    outcome: Outcome = "unresolved"
    """At 1 - level, equivalent by two one-sided tests at the margin."""
    p_equivalent: float | None = None
    reason: str | None = None


class ScalingFit(Frozen):
    """What a scaling study shows."""

    baseline: str
    margin: float | None
    """Difference of loss that counts as none, declared before training; nats per token."""
    level: float
    spans: tuple[tuple[int, int], ...]
    """Ranges of positions in order, the whole window, its trailing part."""
    losses: tuple[SizeLoss, ...]
    projections: tuple[Projection, ...]
    gaps: tuple[SpanGap, ...]
    """By span: the mean over sizes, then each size."""
