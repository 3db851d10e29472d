"""Agreement with top-k against counts made by hand."""

from __future__ import annotations

import numpy as np

from isoflop.config import Agreement
from isoflop.evaluation.agreement import AgreementSums


def rows(*texts: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in text] for text in texts])


TOP_K = np.stack([rows("xx...", ".x..x"), rows("...xx", "xx...")])
"""Two routed blocks, two windows of five tokens."""
SELECTED = np.stack([rows("x.x..", ".x..."), rows(".....", ".....")])


def test_counts_of_two_blocks() -> None:
    sums = AgreementSums(2)
    sums.add(SELECTED, TOP_K)
    # Both select two tokens, the decision one more, top-k two more.
    assert sums.agreement(0) == Agreement(accuracy=7 / 10, precision=2 / 3, recall=2 / 4)
    # Nothing is selected: skipping most tokens still agrees with top-k on most.
    assert sums.agreement(1) == Agreement(accuracy=6 / 10, precision=None, recall=0)


def test_batches_add_up() -> None:
    once, twice = AgreementSums(2), AgreementSums(2)
    once.add(SELECTED, TOP_K)
    for part in (slice(0, 1), slice(1, 2)):
        twice.add(SELECTED[:, part], TOP_K[:, part])
    assert [twice.agreement(i) for i in (0, 1)] == [once.agreement(i) for i in (0, 1)]


def test_top_k_agrees_with_itself() -> None:
    sums = AgreementSums(2)
    sums.add(TOP_K, TOP_K)
    assert sums.agreement(0) == Agreement(accuracy=1, precision=1, recall=1)
