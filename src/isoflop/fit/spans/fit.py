"""From records of a scaling study to losses, projections and gaps, in every span of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isoflop.config import RunRecord, Split
from isoflop.estimate import LEVEL
from isoflop.fit.spans.gaps import OpenGap, decided, span_gaps
from isoflop.fit.spans.losses import projection, size_losses
from isoflop.fit.spans.runs import AXES, SpanRuns
from isoflop.fit.spans.values import Projection, ScalingFit, SizeLoss


def fit_scaling(
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    *,
    baseline: str,
    margin: float | None = None,
    level: float = LEVEL,
    split: Split = "test",
) -> ScalingFit:
    """Return what a scaling study shows (arXiv 2502.13189, section 3.1).

    Losses are those at the end of finished runs, under the headline decision. A projection
    L = a C^b goes by least squares through log mean loss of each size, training curves are not
    used. A gap pairs runs by size and seed and reads the same documents; it is `equivalent` where
    two one-sided tests at `margin` stand at 1 - `level`, else `better` or `worse` where the
    two-sided test does after Holm's correction over the spans, else `unresolved`. With one seed
    nothing but other documents is in its interval, and the outcome is unresolved.

    Args:
        records: outcomes of runs with losses by position.
        variant_of: name of the variant of each run id; records of others are left aside.
        baseline: the variant that the others are held against.
        margin: difference of loss that counts as none, declared before the runs were seen, nats
            per token.
        level: probability that intervals are to hold.
        split: which held-out text.

    Raises:
        ValueError: the baseline is not among the variants, the margin is not positive, or the
            records are not those of one study that tells positions apart.
    """
    names = sorted(set(variant_of.values()))
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    if margin is not None and not margin > 0:
        raise ValueError(f"margin is {margin:g}; expected a positive difference of loss")
    if not 0 < level < 1:
        raise ValueError(f"level is {level:g}; expected a probability between 0 and 1")
    runs = SpanRuns.of(records, variant_of, split)
    losses: list[SizeLoss] = []
    projections: list[Projection] = []
    open_gaps: list[OpenGap] = []
    for span in runs.spans:
        for variant in runs.variants:
            of_sizes = size_losses(runs, variant, span, level)
            losses += of_sizes
            projections += [projection(of_sizes, variant, span, axis, level) for axis in AXES]
            if variant != baseline:
                open_gaps += span_gaps(runs, variant, baseline, span, margin, level)
    return ScalingFit(
        baseline=baseline,
        margin=margin,
        level=level,
        spans=runs.spans,
        losses=tuple(losses),
        projections=tuple(projections),
        gaps=tuple(decided(open_gaps, level)),
    )
