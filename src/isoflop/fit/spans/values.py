"""Loss against compute at named sizes: projections L = a C^b, and gaps between variants.

Losses may be told apart by position in the window (arXiv 2502.13189, section 3.1). Compute is in
PFLOP/s-days, by one of two countings.
"""

from __future__ import annotations

from typing import Literal

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.intervals import Outcome
from isoflop.fit.minima.minimum import Status

PFLOPS_DAY = 8.64e19
"""FLOPs of 1 PFLOP/s-day."""

Axis = Literal["6nd", "causal"]
"""How compute is counted: 6 N D as published, or exactly; see `isoflop.costs`."""
AXES: tuple[Axis, ...] = ("6nd", "causal")


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
    loss: Estimate
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
    a: Estimate | None = None
    """Loss at 1 PFLOP/s-day."""
    b: Estimate | None = None
    sizes: int
    log_residual: float | None = None
    """Standard deviation of log loss about the line."""

    def at(self, compute: float) -> float:
        """Return the loss at `compute` PFLOP/s-days, of a fit that was not refused."""
        assert self.a is not None
        assert self.b is not None
        return float(self.a.value * compute**self.b.value)


class SpanGap(Frozen):
    """A variant's loss less the baseline's in a span of positions, by the same runs' seeds."""

    variant: str
    baseline: str
    start: int
    stop: int
    non_embedding: int | None
    """The size, by the baseline's N; None for the mean over all sizes."""
    difference: Estimate | None = None
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
    """At 1 - level; see `fit_scaling`."""
    p_equivalent: float | None = None
    """Larger of the two one-sided tests against the margin (TOST); None without a margin or where
    seed noise is not known."""
    p_different: float | None = None
    """Two-sided, by Holm over the spans; None where seed noise is not known."""
    reason: str | None = None
    """What kept sizes from being compared, or their noise from being known."""


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
