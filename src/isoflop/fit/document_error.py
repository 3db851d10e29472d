"""How far other documents would move a loss: the clustered standard error of a mean over tokens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.interval import WithError


def document_estimate(sums: ArrayLike, tokens: ArrayLike) -> WithError | None:
    """Return the mean over tokens of many documents, with the error that other ones would give.

    The mean is the ratio of both totals. Tokens of one document are alike, so documents are the
    sample, and the variance is the jackknife's: what leaving each of them out does. A few long
    documents tell as little as few documents do, so the degrees of freedom are one less than
    Kish's effective number of documents, (sum of tokens)^2 / sum of tokens^2, and at least one.

    Args:
        sums: total of each document, such as its summed loss in nats.
        tokens: tokens of each document.

    Returns:
        The estimate; None with fewer than two documents.

    Raises:
        ValueError: lengths differ, or a document has no token.
    """
    totals, counts = np.asarray(sums, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if totals.ndim != 1 or totals.shape != counts.shape or (counts <= 0).any():
        raise ValueError(
            f"sums and tokens have shapes {totals.shape} and {counts.shape}; expected one total "
            "and a positive number of tokens for each document"
        )
    if len(totals) < 2:
        return None
    mean = float(totals.sum() / counts.sum())
    share = counts / counts.sum()
    # Without document i the mean moves by -leverage[i] times how far the document lies off it.
    leverage = share / (1 - share)
    moved = leverage * (totals / counts - mean)
    variance = (1 - 1 / len(totals)) * float(moved @ moved)
    effective = 1 / float(share @ share)
    return WithError(
        value=mean, error=math.sqrt(variance), degrees_of_freedom=max(1.0, effective - 1)
    )
