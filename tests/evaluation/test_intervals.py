"""Means, differences of means and the leak over documents."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.config import Evaluation
from isoflop.evaluation.intervals import difference_over_documents, leak, over_documents
from isoflop.fit.intervals import document_estimate

NATS = np.array([12.0, 80.0, 3.0, 44.0])
TOKENS = np.array([10, 60, 4, 31])


def test_a_mean_has_the_interval_of_its_documents() -> None:
    found = over_documents(NATS, TOKENS)
    expected = document_estimate(NATS, TOKENS)
    interval = expected.interval(0.95)
    assert found.value == pytest.approx(139 / 105)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_documents_without_weight_count_to_the_value_alone() -> None:
    # The third document's target is its end, which stands for no byte.
    weights = np.array([10, 60, 0, 31])
    found = over_documents(NATS, weights)
    others = over_documents(NATS[weights > 0], weights[weights > 0])
    assert found.value == pytest.approx(139 / 101)
    assert None not in (found.low, found.high, others.low, others.high)
    assert found.high - found.low == pytest.approx(others.high - others.low)


def test_one_document_gives_no_interval_and_none_no_value() -> None:
    found = over_documents(np.array([3.0, 0.0]), np.array([2, 0]))
    assert (found.value, found.low, found.high) == (1.5, None, None)
    assert over_documents(np.zeros(2), np.zeros(2)) is None


def test_difference_of_equally_long_documents_is_that_of_their_pairs() -> None:
    first, second = np.array([8.0, 9.5, 7.0, 9.0, 8.2]), np.array([6.0, 8.5, 5.5, 6.5, 7.0])
    tokens = np.full(5, 4)
    found = difference_over_documents(first, tokens, second, tokens)
    expected = over_documents(first - second, tokens)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )


def test_difference_holds_the_true_one_where_documents_share_their_noise() -> None:
    generator = np.random.default_rng(0)
    held, rounds, documents = 0, 400, 40
    for _ in range(rounds):
        first, second = generator.integers(5, 60, (2, documents))
        of_document = generator.normal(0, 1.0, documents)
        sums, other_sums = (
            tokens * (mean + of_document + generator.normal(0, 0.2, documents))
            for tokens, mean in ((first, 2.3), (second, 2.0))
        )
        found = difference_over_documents(sums, first, other_sums, second)
        held += found.low <= 0.3 <= found.high
    assert 0.92 <= held / rounds <= 0.98


def test_difference_needs_tokens_of_both_kinds() -> None:
    none = np.zeros(4)
    assert difference_over_documents(NATS, TOKENS, none, none) is None
    assert difference_over_documents(none, none, NATS, TOKENS) is None


def made(losses: tuple[float, ...], tokens: tuple[int, ...]) -> Evaluation:
    return Evaluation(
        split="test",
        decision="predictor",
        loss=sum(losses) / sum(tokens),
        bits_per_byte=1.0,
        tokens=sum(tokens),
        document_losses=losses,
        document_tokens=tokens,
    )


def test_pairing_takes_out_what_documents_have_in_common() -> None:
    tokens = (100, 80, 120, 90, 110)
    base = np.array([1.0, 3.0, 2.0, 1.5, 2.5]) * tokens
    causal = made(tuple((base + 0.1 * np.array(tokens)).tolist()), tokens)
    found = leak(causal, made(tuple(base.tolist()), tokens))
    assert found.nats.value == pytest.approx(0.1)
    assert (found.nats.low, found.nats.high) == pytest.approx((0.1, 0.1))
    # A lower causal loss is a negative leak, and one of zero has no share.
    found = leak(made((2.0, 4.0), (2, 2)), made((3.0, 4.5), (2, 2)))
    assert (found.nats.value, found.share.value) == pytest.approx((-1.5 / 4, -1.5 / 6))
    assert leak(made((0.0, 0.0), (2, 2)), made((0.0, 0.0), (2, 2))).share is None
