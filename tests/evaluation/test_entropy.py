"""Entropies of known distributions, and their means over processed and skipped tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoflop.evaluation.entropy import EntropySums, prediction_entropy


def test_uniform_and_certain_predictions() -> None:
    logits = torch.zeros(2, 3, 7)
    logits[1, 2, 4] = 200
    logits[0, 1, 2:] = -torch.inf
    found = prediction_entropy(logits)
    expected = torch.full((2, 3), math.log(7))
    expected[1, 2], expected[0, 1] = 0, math.log(2)
    torch.testing.assert_close(found, expected)


def test_equals_the_sum_over_the_vocabulary_and_is_computed_in_full() -> None:
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0)).bfloat16()
    chances = logits.double().softmax(-1)
    exact = -(chances * chances.log()).sum(-1)
    found = prediction_entropy(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


ENTROPY = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
DOCUMENT = np.array([[0, 0, 2], [2, 2, 2]])
SELECTED = np.array(
    [[[True, False, True], [False, False, True]], [[True, True, True], [True, True, True]]]
)


def test_processed_and_skipped_tokens_apart() -> None:
    sums = EntropySums(2, documents=3)
    for row in (slice(0, 1), slice(1, 2)):
        sums.add(ENTROPY[row], SELECTED[:, row], DOCUMENT[row])
    first = sums.entropy(0)
    assert first.processed is not None
    assert first.skipped is not None
    assert first.difference is not None
    assert first.processed.value == pytest.approx((1 + 4 + 32) / 3)
    assert first.skipped.value == pytest.approx((2 + 8 + 16) / 3)
    assert first.difference.value == pytest.approx((1 + 4 + 32 - 2 - 8 - 16) / 3)
    assert first.difference.low is not None
    assert first.difference.low < first.difference.value

    second = sums.entropy(1)
    assert second.processed is not None
    assert second.processed.value == pytest.approx(ENTROPY.mean())
    assert second.skipped is None
    assert second.difference is None
