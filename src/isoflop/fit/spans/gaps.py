"""A variant's loss less the baseline's in a span of positions, over sizes and at each size.

Runs are paired by size and seed, and read the same windows of the same documents, so that what
moves both alike cancels. Sizes are fixed: a mean over them speaks of these sizes. The seeds' part
of the variance is that of the pairs' differences within sizes, pooled, so that it is taken to be
alike at all sizes and independent between them. The documents' part is that of
`document_estimate` on each document's difference, averaged over seeds and then sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isoflop.config import SpanLoss
from isoflop.config.run import Span
from isoflop.fit.intervals import WithError, document_estimate, holm
from isoflop.fit.spans.losses import document_tokens, pooled_variance, with_documents
from isoflop.fit.spans.runs import Shape, SpanRuns, mismatch
from isoflop.fit.spans.values import SpanGap

Pairs = dict[Shape, list[tuple[SpanLoss, SpanLoss]]]
"""Losses of variant and baseline of the same seed, by size."""


@dataclass(frozen=True)
class OpenGap:
    """A gap before it is known how many others are tested with it."""

    gap: SpanGap
    p_two_sided: float | None = None
    """For no difference; None where seed noise is not known."""


def span_gaps(
    runs: SpanRuns, variant: str, baseline: str, span: Span, margin: float | None, level: float
) -> tuple[OpenGap, ...]:
    """Return the gap in a span: the mean over sizes, then each size, the smallest first."""
    sizes = {
        shape: runs.non_embedding[name, shape]
        for shape in runs.shapes
        for name in (variant, baseline)
        if (name, shape) in runs.non_embedding
    }
    pairs: Pairs = {}
    reasons: dict[Shape, str] = {}
    for shape in sizes:
        found, reason = _pairs(runs, variant, baseline, shape, span)
        if reason is None:
            pairs[shape] = found
        else:
            reasons[shape] = reason
    read = {(runs.data_sha256(baseline, shape), _windows(pairs[shape])) for shape in pairs}
    if len(read) > 1:
        reasons |= dict.fromkeys(pairs, "other sizes were evaluated on other documents or windows")
        pairs = {}
    missing = "; ".join(f"N = {sizes[shape]:,}: {reason}" for shape, reason in reasons.items())
    gap = SpanGap(
        variant=variant, baseline=baseline, start=span[0], stop=span[1], non_embedding=None
    )
    open_gaps = [_measured(gap, pairs, list(pairs), missing, margin, level)]
    for shape, size in sizes.items():
        open_gaps.append(
            _measured(
                gap.model_copy(update={"non_embedding": size}),
                pairs,
                [shape] if shape in pairs else [],
                reasons.get(shape, ""),
                margin,
                level,
            )
        )
    return tuple(open_gaps)


def decided(open_gaps: Sequence[OpenGap], level: float) -> list[SpanGap]:
    """Return gaps with their outcomes.

    `equivalent` goes first: a difference that is smaller than the margin counts as none even where
    its sign is known. It is not corrected for the number of spans, since a claim of every span
    needs every test to stand (intersection-union). `better` and `worse` are corrected by Holm, over
    all means over sizes, and over all gaps at single sizes.
    """
    p_different: list[float | None] = [None] * len(open_gaps)
    for single in (False, True):
        family = [
            i for i, one in enumerate(open_gaps) if (one.gap.non_embedding is not None) == single
        ]
        adjusted = holm([open_gaps[i].p_two_sided for i in family])
        for i, p in zip(family, adjusted, strict=True):
            p_different[i] = p
    gaps = []
    for one, p in zip(open_gaps, p_different, strict=True):
        gap = one.gap
        update: dict[str, object] = {"p_different": p}
        if gap.p_equivalent is not None and gap.p_equivalent <= 1 - level:
            update["outcome"] = "equivalent"
        elif gap.difference is not None and p is not None and p <= 1 - level:
            update["outcome"] = "better" if gap.difference.value < 0 else "worse"
        gaps.append(gap.model_copy(update=update))
    return gaps


def _pairs(
    runs: SpanRuns, variant: str, baseline: str, shape: Shape, span: Span
) -> tuple[list[tuple[SpanLoss, SpanLoss]], str | None]:
    """Return the pairs of a size, and why they are none."""
    ones = runs.finished.get((variant, shape), {})
    others = runs.finished.get((baseline, shape), {})
    seeds = [seed for seed in ones if seed in others]
    if not seeds:
        return [], "no finished pair of runs with the same seed"
    for seed in seeds:
        apart = mismatch(ones[seed], others[seed], runs.split)
        if apart is not None:
            return [], f"runs {ones[seed].run_id} and {others[seed].run_id} have {apart}"
    own = runs.losses(variant, shape, span)
    base = runs.losses(baseline, shape, span)
    pairs = [(own[seed], base[seed]) for seed in seeds if seed in own]
    if not pairs or len(pairs[0][0].document_windows) < 2:
        return [], "fewer than two documents reach the span's end"
    return pairs, None


def _measured(
    gap: SpanGap,
    pairs: Pairs,
    chosen: Sequence[Shape],
    missing: str,
    margin: float | None,
    level: float,
) -> OpenGap:
    """Return a gap over the chosen sizes; seed noise is pooled over all of them."""
    if not chosen:
        return OpenGap(gap.model_copy(update={"reason": missing}))
    apart = {
        shape: [one.loss - other.loss for one, other in found] for shape, found in pairs.items()
    }
    value = float(np.mean([np.mean(apart[shape]) for shape in chosen]))
    one = pairs[chosen[0]][0][0]
    by_document = np.mean(
        [
            np.mean(
                [
                    np.subtract(mine.document_losses, theirs.document_losses)
                    for mine, theirs in pairs[shape]
                ],
                axis=0,
            )
            for shape in chosen
        ],
        axis=0,
    )
    documents = document_estimate(by_document, document_tokens(one))
    assert documents is not None
    variance, free = pooled_variance(list(apart.values()))
    seeds = None
    if free:
        error = math.sqrt(variance * sum(1 / len(apart[shape]) for shape in chosen)) / len(chosen)
        seeds = WithError(value=value, error=error, degrees_of_freedom=free)
    estimate = with_documents(value, seeds, documents)
    update: dict[str, object] = {
        "difference": estimate.interval(level),
        "document_error": documents.error,
        "pairs": sum(len(pairs[shape]) for shape in chosen),
        "documents": len(one.document_windows),
        "windows": one.windows,
    }
    if seeds is None:
        unknown = "one pair of runs at each size, so seed noise is not known"
        update["reason"] = f"{missing}; {unknown}" if missing else unknown
        return OpenGap(gap.model_copy(update=update))
    update["seed_error"] = seeds.error
    update["reason"] = missing or None
    update["p_equivalent"] = estimate.p_equivalent(margin)
    return OpenGap(
        gap.model_copy(update=update),
        p_two_sided=min(1.0, 2 * min(estimate.p_below(), estimate.p_above())),
    )


def _windows(pairs: Sequence[tuple[SpanLoss, SpanLoss]]) -> tuple[int, ...]:
    return pairs[0][0].document_windows
