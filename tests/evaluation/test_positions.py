"""Losses by position against sums worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.config import SpanLoss
from isoflop.evaluation.positions import SpanSums

NATS = np.array(
    [
        [1.0, 2.0, 4.0, 8.0, 16.0],
        [3.0, 5.0, 7.0, 99.0, 99.0],
        [0.5, 0.25, 1.5, 2.5, 3.5],
        [99.0, 99.0, 99.0, 99.0, 99.0],
    ]
)
"""Four windows of five: of 5, 3 and 5 targets, and padding; 99 is never to be read."""
TARGETS = np.array([5, 3, 5, 0])
MASK = np.arange(5) < TARGETS[:, None]
DOCUMENT = np.where(MASK, np.array([2, 0, 2, 0])[:, None], -1)


def test_only_windows_that_reach_the_end_of_a_span_count() -> None:
    sums = SpanSums([(0, 2), (1, 4), (3, 5), (0, 5)], 5, documents=4)
    sums.add(NATS, DOCUMENT, MASK)
    assert sums.losses() == (
        SpanLoss(
            start=0,
            stop=2,
            loss=(8.0 + 3.75) / 6,
            document_losses=(8.0, 3.75),
            document_windows=(1, 2),
        ),
        # The window of three targets has two of this span's, and does not count.
        SpanLoss(start=1, stop=4, loss=18.25 / 6, document_losses=(18.25,), document_windows=(2,)),
        SpanLoss(start=3, stop=5, loss=30.0 / 4, document_losses=(30.0,), document_windows=(2,)),
        SpanLoss(start=0, stop=5, loss=39.25 / 10, document_losses=(39.25,), document_windows=(2,)),
    )
    assert [one.tokens for one in sums.losses()] == [6, 6, 4, 10]


def test_batches_add_up() -> None:
    once, twice = (SpanSums([(0, 3), (2, 5)], 5, documents=3) for _ in range(2))
    once.add(NATS, DOCUMENT, MASK)
    for rows in (slice(0, 1), slice(1, 4)):
        twice.add(NATS[rows], DOCUMENT[rows], MASK[rows])
    assert twice.losses() == once.losses()


def test_a_span_that_no_window_reaches_is_left_out() -> None:
    sums = SpanSums([(0, 4), (0, 3)], 5, documents=1)
    sums.add(NATS[1:2], DOCUMENT[1:2], MASK[1:2])
    (found,) = sums.losses()
    assert (found.start, found.stop, found.loss) == (0, 3, 5.0)


def test_document_sums_are_rounded_as_those_of_documents_are() -> None:
    sums = SpanSums([(0, 2)], 5, documents=3)
    sums.add(NATS / 3, DOCUMENT, MASK)
    (found,) = sums.losses()
    assert found.document_losses == (2.6667, 1.25)
    assert found.loss == pytest.approx(11.75 / 18, rel=1e-12)


@pytest.mark.parametrize("span", [(2, 2), (3, 1), (-1, 2), (0, 6)])
def test_a_span_outside_the_window_is_refused(span: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"a span is \(.*expected positions from 0 to"):
        SpanSums([(0, 5), span], 5, documents=3)
