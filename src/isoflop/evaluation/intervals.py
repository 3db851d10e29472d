"""Means over the tokens of many documents, with the interval that other documents would give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isoflop.config import Evaluation, Leak
from isoflop.estimate import Estimate
from isoflop.fit.intervals import document_estimate

Sums = NDArray[np.float64] | NDArray[np.int64]
"""A total of each document, (documents,)."""


def over_documents(sums: Sums, weights: Sums) -> Estimate | None:
    """Return the sum of `sums` over that of `weights`; None where no document has weight.

    Documents without weight, such as one whose only target is its end where bytes are the
    weight, count to the value and not to its interval.
    """
    heavy = weights > 0
    if not heavy.any():
        return None
    value = float(sums.sum() / weights.sum())
    estimate = document_estimate(sums[heavy], weights[heavy])
    if estimate is None:
        return Estimate(value=value)
    interval = estimate.model_copy(update={"value": value}).interval()
    return Estimate(value=value, low=interval.low, high=interval.high)


def difference_over_documents(
    sums: Sums, weights: Sums, other_sums: Sums, other_weights: Sums
) -> Estimate | None:
    """Return the first mean less the other one; None where one of them has no tokens.

    Both means come from the same documents, so their errors are not independent. Linearised, the
    difference is a mean over the tokens of both together, whose interval is known.
    """
    first, second = float(weights.sum()), float(other_weights.sum())
    if not first or not second:
        return None
    mean, other_mean = float(sums.sum()) / first, float(other_sums.sum()) / second
    both = weights + other_weights
    # What a document does to either mean sums to zero over documents.
    pull = (sums - mean * weights) / first - (other_sums - other_mean * other_weights) / second
    return over_documents((mean - other_mean) * both + pull * both.sum(), both)


def leak(causal: Evaluation, top_k: Evaluation) -> Leak:
    """Return how much lower the loss under top-k, which looks ahead, is, paired by document.

    Both are of the same tokens.
    """
    assert causal.document_tokens == top_k.document_tokens
    losses = np.array(causal.document_losses)
    gains = losses - np.array(top_k.document_losses)
    nats = over_documents(gains, np.array(causal.document_tokens))
    assert nats is not None
    return Leak(nats=nats, share=over_documents(gains, losses))
