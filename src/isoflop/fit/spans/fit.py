"""From records of a scaling study to losses, projections and gaps, in every span of positions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from isoflop.config import RunRecord, SpanLoss
from isoflop.config.run import Span
from isoflop.estimate import LEVEL
from isoflop.fit.intervals import Floats, WithError, document_estimate, holm
from isoflop.fit.laws.optima import fit_power_law
from isoflop.fit.settings import FitSettings
from isoflop.fit.spans.values import (
    AXES,
    PFLOPS_DAY,
    Axis,
    Projection,
    ScalingFit,
    SizeLoss,
    SpanGap,
)

Shape = tuple[int, int]
"""Blocks and width: what a size is in every variant."""
Seen = Mapping[Shape, Sequence[tuple[float, Sequence[float] | Floats]]]
"""By size, of each seed: the loss of a run, or of one less another's, and the summed losses of its
documents."""


def fit_scaling(
    records: Sequence[RunRecord],
    variant_of: Mapping[str, str],
    *,
    baseline: str,
    margin: float | None = None,
    level: float = LEVEL,
) -> ScalingFit:
    """Return what a scaling study shows (arXiv 2502.13189, section 3.1).

    Losses are those on the test split at the end of finished runs, under the headline decision. A
    projection L = a C^b goes by least squares through log mean loss of each size, training curves
    are not used: each loss is held-out and read under a learning rate that has decayed. Its
    intervals hold seeds and the line's own misfit, and take other documents to move all sizes by
    the same factor, which b does not see. A gap pairs runs by size and seed and reads the same
    documents; it is `equivalent` where two one-sided tests at `margin` stand at 1 - `level`, else
    `better` or `worse` where the two-sided test does after Holm's correction over the spans, else
    `unresolved`. With one seed nothing but other documents is in its interval, and the outcome is
    unresolved.

    Args:
        records: outcomes of runs with losses by position.
        variant_of: name of the variant of each run id; records of others are left aside.
        baseline: the variant that the others are held against.
        margin: difference of loss that counts as none, declared before the runs were seen, nats
            per token.
        level: probability that intervals are to hold.

    Raises:
        ValueError: the baseline is not among the variants, the margin is not positive, or the
            records are not those of one study that tells positions apart.
    """
    names = sorted(set(variant_of.values()))
    if baseline not in names:
        raise ValueError(f"baseline is {baseline!r}; expected one of {names}")
    asked = FitSettings(margin=margin, level=level)
    runs = SpanRuns.of(records, variant_of)
    losses: list[SizeLoss] = []
    projections: list[Projection] = []
    gaps: list[SpanGap] = []
    for span in runs.spans:
        for variant in runs.variants:
            of_sizes = _size_losses(runs, variant, span, level)
            losses += of_sizes
            projections += [_projection(of_sizes, variant, span, axis, level) for axis in AXES]
            if variant != baseline:
                gaps += _span_gaps(runs, variant, baseline, span, asked)
    return ScalingFit(
        baseline=baseline,
        margin=margin,
        level=level,
        spans=runs.spans,
        losses=tuple(losses),
        projections=tuple(projections),
        gaps=_decided(gaps, level),
    )


@dataclass(frozen=True)
class SpanRuns:
    """Runs of a study that tell positions apart."""

    spans: tuple[Span, ...]
    variants: tuple[str, ...]
    """In the order of the records."""
    sizes: Mapping[tuple[str, Shape], RunRecord]
    """A run of each size of a variant, finished or not, the smallest size first."""
    losses: Mapping[tuple[str, Shape], Mapping[int, Mapping[Span, SpanLoss]]]
    """Of finished runs by seed, ascending, and by the spans that a window reaches."""

    @classmethod
    def of(cls, records: Sequence[RunRecord], variant_of: Mapping[str, str]) -> SpanRuns:
        """Return the runs of `variant_of`; records of others are left aside.

        Raises:
            ValueError: no run tells positions apart, or they tell different ones, or finished runs
                differ in what they read, or two are of one seed and size.
        """
        own = [record for record in records if record.run_id in variant_of]
        asked = {record.config.spans for record in own} - {()}
        if len(asked) != 1:
            raise ValueError(
                f"the runs tell {len(asked)} different sets of positions apart; expected runs of "
                "one study with [positions]"
            )
        sizes: dict[tuple[str, Shape], RunRecord] = {}
        losses: dict[tuple[str, Shape], dict[int, dict[Span, SpanLoss]]] = defaultdict(dict)
        read, tokens = set(), set()
        for record in sorted(own, key=lambda one: one.config.seed):
            shape = record.config.model.blocks, record.config.model.width
            key, evaluation = (variant_of[record.run_id], shape), record.evaluation("test")
            sizes.setdefault(key, record)
            if record.state == "finished" and evaluation is not None and evaluation.spans:
                sizes[key] = record
                if record.config.seed in losses[key]:
                    raise ValueError(
                        f"run {record.run_id} is another of seed {record.config.seed} of "
                        f"{key[0]!r} at {shape[0]} blocks of width {shape[1]}; expected one run of "
                        "each seed"
                    )
                found = {(one.start, one.stop): one for one in evaluation.spans}
                losses[key][record.config.seed] = found
                windows = [(span, one.document_windows) for span, one in found.items()]
                read.add((record.data_sha256, *windows))
                tokens.add((shape, record.config.tokens))
        if len(read) > 1 or len(tokens) > len({shape for shape, _ in tokens}):
            what = "data, documents or windows" if len(read) > 1 else "training tokens of one size"
            raise ValueError(f"finished runs differ in {what}; expected the same of all")
        return cls(
            spans=next(iter(asked)),
            variants=tuple(dict.fromkeys(variant_of[record.run_id] for record in own)),
            sizes=dict(sorted(sizes.items(), key=lambda one: one[1].parameters.non_embedding)),
            losses=dict(losses),
        )

    def at(self, variant: str, shape: Shape, span: Span) -> dict[int, SpanLoss]:
        """Return the loss in a span of each finished seed; empty where no window reaches it."""
        seeds = self.losses.get((variant, shape), {})
        return {seed: found[span] for seed, found in seeds.items() if span in found}


def _size_losses(runs: SpanRuns, variant: str, span: Span, level: float) -> list[SizeLoss]:
    """Return the mean loss of each size with one that two documents reach, the smallest first."""
    shapes = [shape for name, shape in runs.sizes if name == variant]
    by_shape = {shape: losses for shape in shapes if (losses := runs.at(variant, shape, span))}
    seen = {
        shape: [(one.loss, one.document_losses) for one in losses.values()]
        for shape, losses in by_shape.items()
    }
    made = []
    for shape, losses in by_shape.items():
        run, one = runs.sizes[variant, shape], next(iter(losses.values()))
        found = measured(seen, [shape], one)
        if found is None:
            continue
        loss = SizeLoss(
            variant=variant,
            non_embedding=run.parameters.non_embedding,
            compute={axis: run.train_flops[axis] / PFLOPS_DAY for axis in AXES},
            start=span[0],
            stop=span[1],
            loss=found[0].interval(level),
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


def measured(
    sizes: Seen, chosen: Sequence[Shape], one: SpanLoss
) -> tuple[WithError, WithError | None, WithError] | None:
    """Return the mean over chosen sizes, each a mean over seeds; None of fewer than two documents.

    With the whole error, with that of seeds, None where no size has two, and with the documents'.

    Sizes are fixed: a mean over them speaks of these sizes. The seeds' part of the variance is that
    within sizes, pooled over all of them, so that it is taken to be alike at all sizes and
    independent between them. The documents' part is that of `document_estimate` on each document,
    averaged over seeds and then sizes. Both are added, which counts what is a seed's and a
    document's together twice: small, and to the safe side.

    The inverse degrees of freedom are averaged by the shares of both variances, after Cochran and
    Cox (Experimental Designs, section 4.14). Satterthwaite's are too many where a few
    documents weigh the most: by chance their variance comes out small, and with it their share.

    `one` is any loss on the same documents.
    """
    groups = {shape: [loss for loss, _ in seen] for shape, seen in sizes.items()}
    by_document = [np.mean(np.array([sums for _, sums in sizes[one]]), axis=0) for one in chosen]
    tokens = [windows * (one.stop - one.start) for windows in one.document_windows]
    documents = document_estimate(np.mean(by_document, axis=0), tokens)
    if documents is None:
        return None
    value = float(np.mean([np.mean(groups[shape]) for shape in chosen]))
    free = sum(len(group) - 1 for group in groups.values())
    if not free:
        return documents.model_copy(update={"value": value}), None, documents
    variance = sum(float(np.var(group)) * len(group) for group in groups.values()) / free
    error = math.sqrt(variance * sum(1 / len(groups[shape]) for shape in chosen)) / len(chosen)
    seeds = WithError(value=value, error=error, degrees_of_freedom=free)
    parts = [(part.error**2, part.degrees_of_freedom) for part in (seeds, documents)]
    total = sum(variance for variance, _ in parts)
    freedom = min(of_part for _, of_part in parts)
    if total > 0:
        freedom = total / sum(variance / of_part for variance, of_part in parts)
    whole = WithError(value=value, error=math.sqrt(total), degrees_of_freedom=freedom)
    return whole, seeds, documents


def _span_gaps(
    runs: SpanRuns, variant: str, baseline: str, span: Span, asked: FitSettings
) -> list[SpanGap]:
    """Return the gap in a span: the mean over sizes, then each size, the smallest first.

    Outcomes are open and p-values uncorrected until `_decided`.
    """
    of_both = {key: run for key, run in runs.sizes.items() if key[0] in (variant, baseline)}
    sizes = {shape: run.parameters.non_embedding for (_, shape), run in of_both.items()}
    for (name, shape), run in of_both.items():
        if name == baseline:
            sizes[shape] = run.parameters.non_embedding
    apart: dict[Shape, list[tuple[float, Floats]]] = {}
    reasons: dict[Shape, str] = {}
    one: SpanLoss | None = None
    for shape in sizes:
        own, base = (runs.at(name, shape, span) for name in (variant, baseline))
        pairs = [(own[seed], base[seed]) for seed in own if seed in base]
        both = [runs.losses.get((name, shape), {}) for name in (variant, baseline)]
        if both[0].keys().isdisjoint(both[1]):
            reasons[shape] = "no finished pair of runs with the same seed"
        elif not pairs or len(pairs[0][0].document_windows) < 2:
            reasons[shape] = "fewer than two documents reach the span's end"
        else:
            one = pairs[0][0]
            # What moves both runs of a pair alike cancels.
            apart[shape] = [
                (mine.loss - other.loss, np.subtract(mine.document_losses, other.document_losses))
                for mine, other in pairs
            ]
    missing = "; ".join(f"N = {sizes[shape]:,}: {reason}" for shape, reason in reasons.items())
    gap = SpanGap(
        variant=variant, baseline=baseline, start=span[0], stop=span[1], non_embedding=None
    )
    whole = gap.model_copy(update={"reason": missing})
    gaps = [whole if one is None else _measured(whole, apart, list(apart), one, asked)]
    for shape, size in sizes.items():
        single = gap.model_copy(update={"non_embedding": size, "reason": reasons.get(shape)})
        if one is not None and shape in apart:
            single = _measured(single, apart, [shape], one, asked)
        gaps.append(single)
    return gaps


def _measured(
    gap: SpanGap, apart: Seen, chosen: Sequence[Shape], one: SpanLoss, asked: FitSettings
) -> SpanGap:
    """Return a gap over the chosen sizes; seed noise is pooled over all of them."""
    found = measured(apart, chosen, one)
    assert found is not None
    whole, seeds, of_documents = found
    update: dict[str, object] = {
        "difference": whole.interval(asked.level),
        "document_error": of_documents.error,
        "pairs": sum(len(apart[shape]) for shape in chosen),
        "documents": len(one.document_windows),
        "windows": one.windows,
    }
    reasons = [gap.reason] if gap.reason else []
    if seeds is None:
        reasons.append("one pair of runs at each size, so seed noise is not known")
    else:
        update["seed_error"] = seeds.error
        update["p_equivalent"] = whole.p_equivalent(asked.margin)
        update["p_different"] = whole.p_different()
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
