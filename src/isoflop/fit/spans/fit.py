"""From records of a scaling study to losses, projections and gaps, in every span of positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isoflop.config import RunRecord, SpanLoss, Split
from isoflop.config.run import Span
from isoflop.estimate import LEVEL
from isoflop.fit.intervals import holm
from isoflop.fit.laws.optima import fit_power_law
from isoflop.fit.spans.runs import Shape, SpanRuns, measured, mismatch
from isoflop.fit.spans.values import (
    AXES,
    PFLOPS_DAY,
    Axis,
    Projection,
    ScalingFit,
    SizeLoss,
    SpanGap,
)

Pairs = Mapping[Shape, Sequence[tuple[SpanLoss, SpanLoss]]]
"""Losses of variant and baseline of the same seed, by size: what moves both alike cancels."""


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
    used: each loss is held-out and read under a learning rate that has decayed. Its intervals hold
    seeds and the line's own misfit, and take other documents to move all sizes by the same factor,
    which b does not see. A gap pairs runs by size and seed and reads the same documents; it is
    `equivalent` where two one-sided tests at `margin` stand at 1 - `level`, else `better` or
    `worse` where the two-sided test does after Holm's correction over the spans, else `unresolved`.
    With one seed nothing but other documents is in its interval, and the outcome is unresolved.

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
    gaps: list[SpanGap] = []
    for span in runs.spans:
        for variant in runs.variants:
            of_sizes = _size_losses(runs, variant, span, level)
            losses += of_sizes
            projections += [_projection(of_sizes, variant, span, axis, level) for axis in AXES]
            if variant != baseline:
                gaps += _span_gaps(runs, variant, baseline, span, margin, level)
    return ScalingFit(
        baseline=baseline,
        margin=margin,
        level=level,
        spans=runs.spans,
        losses=tuple(losses),
        projections=tuple(projections),
        gaps=_decided(gaps, level),
    )


def _size_losses(runs: SpanRuns, variant: str, span: Span, level: float) -> list[SizeLoss]:
    """Return the mean loss of each size with one that two documents reach, the smallest first."""
    by_shape = {shape: runs.losses(variant, shape, span) for shape in runs.shapes}
    by_shape = {shape: losses for shape, losses in by_shape.items() if losses}
    seen = {
        shape: [(one.loss, one.document_losses) for one in losses.values()]
        for shape, losses in by_shape.items()
    }
    made = []
    for shape, losses in by_shape.items():
        one = next(iter(losses.values()))
        found = measured(seen, [shape], one)
        if found is None:
            continue
        flops = runs.first(variant, shape).train_flops
        loss = SizeLoss(
            variant=variant,
            non_embedding=runs.non_embedding[variant, shape],
            compute={axis: flops[axis] / PFLOPS_DAY for axis in AXES},
            start=span[0],
            stop=span[1],
            loss=found.whole.interval(level),
            seeds=tuple(losses),
            documents=len(one.document_windows),
            windows=one.windows,
            tokens=one.tokens,
        )
        made.append(loss)
    return made


def _projection(
    losses: Sequence[SizeLoss], variant: str, span: Span, axis: Axis, level: float
) -> Projection:
    """Return L = a C^b by least squares of log mean loss on log compute, a point per size."""
    compute = [one.compute[axis] for one in losses]
    law = fit_power_law(compute, [one.loss.value for one in losses], level=level)
    count, message = len(losses), law.message
    if count < 2:
        message = f"{count} size{'s' * (count != 1)} with a loss, at least 2 needed"
    return Projection(
        variant=variant,
        start=span[0],
        stop=span[1],
        axis=axis,
        status=law.status,
        message=message,
        a=law.k,
        b=law.a,
        sizes=count,
        log_residual=law.log_residual,
    )


def _span_gaps(
    runs: SpanRuns, variant: str, baseline: str, span: Span, margin: float | None, level: float
) -> list[SpanGap]:
    """Return the gap in a span: the mean over sizes, then each size, the smallest first.

    Outcomes are open and p-values uncorrected until `_decided`.
    """
    sizes = {
        shape: runs.non_embedding[name, shape]
        for shape in runs.shapes
        for name in (variant, baseline)
        if (name, shape) in runs.non_embedding
    }
    found = {shape: _pairs(runs, variant, baseline, shape, span) for shape in sizes}
    reasons = {shape: one for shape, one in found.items() if isinstance(one, str)}
    pairs = {shape: one for shape, one in found.items() if not isinstance(one, str)}
    read = {
        (runs.first(baseline, shape).data_sha256, one[0][0].document_windows)
        for shape, one in pairs.items()
    }
    if len(read) > 1:
        reasons |= dict.fromkeys(pairs, "other sizes were evaluated on other documents or windows")
        pairs = {}
    missing = "; ".join(f"N = {sizes[shape]:,}: {reason}" for shape, reason in reasons.items())
    gap = SpanGap(
        variant=variant, baseline=baseline, start=span[0], stop=span[1], non_embedding=None
    )
    gaps = [_measured(gap, pairs, list(pairs), missing, margin, level)]
    for shape, size in sizes.items():
        single = gap.model_copy(update={"non_embedding": size})
        chosen = [shape] if shape in pairs else []
        gaps.append(_measured(single, pairs, chosen, reasons.get(shape, ""), margin, level))
    return gaps


def _pairs(
    runs: SpanRuns, variant: str, baseline: str, shape: Shape, span: Span
) -> list[tuple[SpanLoss, SpanLoss]] | str:
    """Return the pairs of a size, or why there are none."""
    ones, others = (runs.finished.get((name, shape), {}) for name in (variant, baseline))
    seeds = [seed for seed in ones if seed in others]
    if not seeds:
        return "no finished pair of runs with the same seed"
    for seed in seeds:
        apart = mismatch(ones[seed], others[seed], runs.split)
        if apart is not None:
            return f"runs {ones[seed].run_id} and {others[seed].run_id} have {apart}"
    own, base = (runs.losses(name, shape, span) for name in (variant, baseline))
    pairs = [(own[seed], base[seed]) for seed in seeds if seed in own]
    if not pairs or len(pairs[0][0].document_windows) < 2:
        return "fewer than two documents reach the span's end"
    return pairs


def _measured(
    gap: SpanGap,
    pairs: Pairs,
    chosen: Sequence[Shape],
    missing: str,
    margin: float | None,
    level: float,
) -> SpanGap:
    """Return a gap over the chosen sizes; seed noise is pooled over all of them."""
    if not chosen:
        return gap.model_copy(update={"reason": missing})
    apart = {
        shape: [
            (mine.loss - other.loss, np.subtract(mine.document_losses, other.document_losses))
            for mine, other in found
        ]
        for shape, found in pairs.items()
    }
    one = pairs[chosen[0]][0][0]
    found = measured(apart, chosen, one)
    assert found is not None
    update: dict[str, object] = {
        "difference": found.whole.interval(level),
        "document_error": found.documents.error,
        "pairs": sum(len(pairs[shape]) for shape in chosen),
        "documents": len(one.document_windows),
        "windows": one.windows,
    }
    reasons = [missing] if missing else []
    if found.seeds is None:
        reasons.append("one pair of runs at each size, so seed noise is not known")
    else:
        update["seed_error"] = found.seeds.error
        update["p_equivalent"] = found.whole.p_equivalent(margin)
        update["p_different"] = found.whole.p_different()
    return gap.model_copy(update={**update, "reason": "; ".join(reasons) or None})


def _decided(gaps: Sequence[SpanGap], level: float) -> tuple[SpanGap, ...]:
    """Return gaps with their outcomes.

    `equivalent` goes first: a difference that is smaller than the margin counts as none even where
    its sign is known. It is not corrected for the number of spans, since a claim of every span
    needs every test to stand (intersection-union). `better` and `worse` are corrected by Holm, over
    all means over sizes, and over all gaps at single sizes.
    """
    singles = [gap.non_embedding is not None for gap in gaps]
    adjusted = holm([gap.p_different for gap in gaps], singles)
    told = []
    for gap, p in zip(gaps, adjusted, strict=True):
        outcome = gap.outcome
        if gap.p_equivalent is not None and gap.p_equivalent <= 1 - level:
            outcome = "equivalent"
        elif gap.difference is not None and p is not None and p <= 1 - level:
            outcome = "better" if gap.difference.value < 0 else "worse"
        told.append(gap.model_copy(update={"p_different": p, "outcome": outcome}))
    return tuple(told)
