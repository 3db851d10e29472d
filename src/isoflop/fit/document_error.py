"""How far other documents would move a loss: the clustered standard error of a mean over tokens."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.interval import Estimate
from isoflop.fit.minimum import Floats


def document_estimate(sums: ArrayLike, tokens: ArrayLike) -> Estimate | None:
    """Return the mean over tokens of many documents, with the error that other ones would give.

    The mean is the ratio of both totals. Tokens of one document are alike, so documents are the
    sample, and the variance is the jackknife's: what leaving each of them out does. Degrees of
    freedom are those of that variance where documents' means scatter alike (Bell and McCaffrey,
    Survey Methodology 28, 2002): one less than the documents where they are equally long, fewer
    where a few long ones decide.

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
    return Estimate(
        value=mean, error=math.sqrt(variance), degrees_of_freedom=_freedom(share, leverage)
    )


def _freedom(share: Floats, leverage: Floats) -> float:
    """Return tr(M)^2 / tr(M^2) of the variance's quadratic form M in the documents' means.

    M = (I - p 1^T) D^2 (I - 1 p^T) for shares p and D = diag(leverage): a diagonal matrix and one
    of rank two, so that it need not be written out.
    """
    squares = leverage**2
    total = float(squares.sum())
    vectors = np.stack([share, squares])
    core = np.array([[total, -1.0], [-1.0, 0.0]])
    low_rank_diagonal = np.einsum("in,ij,jn->n", vectors, core, vectors)
    trace = total + float(low_rank_diagonal.sum())
    inner = core @ (vectors @ vectors.T)
    square_trace = float(
        squares @ squares + 2 * squares @ low_rank_diagonal + np.trace(inner @ inner)
    )
    return trace**2 / square_trace
