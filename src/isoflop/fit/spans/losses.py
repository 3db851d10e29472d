"""Mean loss of each size in each span of positions, and the projections through the sizes.

A loss is known to within what other seeds and other documents would give. The seeds' part is the
variance within sizes, pooled over the sizes of a variant; the documents' part is that of
`document_estimate` on the documents' losses, averaged over seeds. Both are added, which counts
what is a seed's and a document's together twice: small, and to the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from isoflop.config import SpanLoss
from isoflop.config.run import Span
from isoflop.fit.intervals import WithError, document_estimate
from isoflop.fit.laws.power_law import fit_power_law, power_law_intervals
from isoflop.fit.spans.runs import SpanRuns
from isoflop.fit.spans.values import Axis, Projection, SizeLoss


def size_losses(runs: SpanRuns, variant: str, span: Span, level: float) -> tuple[SizeLoss, ...]:
    """Return the mean loss of each size of a variant in a span, the smallest size first.

    Sizes without a finished run are left out, and so is a span that fewer than two documents
    reach, since one document says nothing of others.
    """
    by_shape = {shape: runs.losses(variant, shape, span) for shape in runs.shapes}
    variance, free = pooled_variance(
        [[one.loss for one in losses.values()] for losses in by_shape.values()]
    )
    found = []
    for shape, losses in by_shape.items():
        documents = None if not losses else document_mean(list(losses.values()))
        if documents is None:
            continue
        mean = float(np.mean([one.loss for one in losses.values()]))
        seeds = None
        if free:
            error = math.sqrt(variance / len(losses))
            seeds = WithError(value=mean, error=error, degrees_of_freedom=free)
        one = next(iter(losses.values()))
        found.append(
            SizeLoss(
                variant=variant,
                non_embedding=runs.non_embedding[variant, shape],
                compute=runs.compute(variant, shape),
                start=span[0],
                stop=span[1],
                loss=with_documents(mean, seeds, documents).interval(level),
                seeds=tuple(losses),
                documents=len(one.document_windows),
                windows=one.windows,
                tokens=one.tokens,
            )
        )
    return tuple(found)


def projection(
    losses: Sequence[SizeLoss], variant: str, span: Span, axis: Axis, level: float
) -> Projection:
    """Return L = a C^b by least squares of log mean loss on log compute, a point per size.

    Final losses are fitted, not training curves: each is held-out and read under a learning rate
    that has decayed. The intervals are Student's with two degrees of freedom less than sizes, by
    the scatter of the sizes about the line: they hold seeds and the line's own misfit, and take
    other documents to move all sizes by the same factor, which b does not see.
    """
    if len(losses) < 2:
        return Projection(
            variant=variant,
            start=span[0],
            stop=span[1],
            axis=axis,
            status="too_few",
            message=f"{len(losses)} size{'s' * (len(losses) != 1)} with a loss, at least 2 needed",
            sizes=len(losses),
        )
    compute = [one.compute[axis] for one in losses]
    law = fit_power_law(compute, [one.loss.value for one in losses])
    a, b = None, None
    if law.status == "converged":
        a, b = power_law_intervals(law, compute, level=level)
    return Projection(
        variant=variant,
        start=span[0],
        stop=span[1],
        axis=axis,
        status=law.status,
        message=law.message,
        a=a,
        b=b,
        sizes=len(losses),
        log_residual=law.log_residual,
    )


def pooled_variance(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Return the variance within groups and its degrees of freedom; 0 and 0 without any."""
    squares = sum(float(np.var(group)) * len(group) for group in groups if len(group))
    free = sum(len(group) - 1 for group in groups if len(group))
    return (squares / free if free else 0.0), free


def document_mean(losses: Sequence[SpanLoss]) -> WithError | None:
    """Return the mean loss of runs on the same documents; None with fewer than two documents."""
    sums = np.mean([one.document_losses for one in losses], axis=0)
    return document_estimate(sums, document_tokens(losses[0]))


def document_tokens(loss: SpanLoss) -> list[int]:
    """Return the targets of each document in a span."""
    return [windows * (loss.stop - loss.start) for windows in loss.document_windows]


def with_documents(value: float, seeds: WithError | None, documents: WithError) -> WithError:
    """Return a value with the errors of seeds, where they are known, and of documents.

    The inverse degrees of freedom are averaged by the shares of both variances, after Cochran and
    Cox (Experimental Designs, section 4.14). Satterthwaite's are too many where a few
    documents weigh the most: by chance their variance comes out small, and with it their share.
    """
    if seeds is None:
        return documents.model_copy(update={"value": value})
    variances = (seeds.error**2, documents.error**2)
    total = sum(variances)
    freedom = min(seeds.degrees_of_freedom, documents.degrees_of_freedom)
    if total > 0:
        freedom = total / (
            variances[0] / seeds.degrees_of_freedom + variances[1] / documents.degrees_of_freedom
        )
    return WithError(value=value, error=math.sqrt(total), degrees_of_freedom=freedom)
