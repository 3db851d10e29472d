"""What a routed block does, against counts made by hand and known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from isoflop.config import Agreement, TokenSelection
from isoflop.evaluation import routing
from isoflop.evaluation.routing import POSITION_RANGES, WEIGHT_RANGES, prediction_entropy


def rows(*texts: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in text] for text in texts])


TOP_K = rows("xx...", ".x..x"), rows("...xx", "xx...")


@pytest.mark.parametrize(
    ("selected", "top_k", "expected"),
    [
        # Both select two tokens, the decision one more, top-k two more.
        (rows("x.x..", ".x..."), TOP_K[0], (7 / 10, 2 / 3, 2 / 4)),
        # Nothing is selected: skipping most tokens still agrees with top-k on most.
        (rows(".....", "....."), TOP_K[1], (6 / 10, None, 0)),
        (TOP_K[0], TOP_K[0], (1, 1, 1)),
    ],
)
def test_agreement_with_top_k(selected, top_k, expected) -> None:
    named = dict(zip(("accuracy", "precision", "recall"), expected, strict=True))
    assert routing.agreement(selected, top_k) == Agreement(**named)


def test_entropy_of_known_distributions_is_computed_in_full() -> None:
    logits = torch.zeros(2, 3, 7)
    logits[1, 2, 4] = 200
    logits[0, 1, 2:] = -torch.inf
    expected = torch.full((2, 3), math.log(7))
    expected[1, 2], expected[0, 1] = 0, math.log(2)
    torch.testing.assert_close(prediction_entropy(logits), expected)
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0)).bfloat16()
    chances = logits.double().softmax(-1)
    found = prediction_entropy(logits)
    assert found.dtype == torch.float32
    exact = -(chances * chances.log()).sum(-1)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-6)


def test_entropy_of_processed_and_skipped_tokens_apart() -> None:
    entropy = np.array([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]])
    document = np.array([[0, 0, 2], [2, 2, 2]])
    first = routing.routed_entropy(entropy, rows("x.x", "..x"), document)
    assert first.processed.value == pytest.approx((1 + 4 + 32) / 3)
    assert first.skipped.value == pytest.approx((2 + 8 + 16) / 3)
    assert first.difference.value == pytest.approx((1 + 4 + 32 - 2 - 8 - 16) / 3)
    assert first.difference.low < first.difference.value
    second = routing.routed_entropy(entropy, rows("xxx", "xxx"), document)
    assert second.processed.value == pytest.approx(entropy.mean())
    assert second.skipped is None
    assert second.difference is None


TOKENS = np.array([[5, 3, 5, 1], [3, 3, 1, 5], [3, 6, 5, 3]])
"""Three windows of four; 3 occurs five times, 5 four times, 1 twice, 6 once."""
SELECTED = rows("x.x.", "...x", ".xx."), rows("..x.", "x..x", "....")


def test_ids_by_how_often_they_are_selected() -> None:
    assert routing.share_by_position(SELECTED[0]) == pytest.approx((1 / 3, 1 / 3, 2 / 3, 1 / 3))
    first = routing.selected_ids(TOKENS, SELECTED[0], 2)
    most = [
        TokenSelection(token=5, occurrences=4, selected=4),
        TokenSelection(token=3, occurrences=5, selected=0),
        TokenSelection(token=1, occurrences=2, selected=0),
    ]
    assert routing.most_selected(first) == most
    # Of ids that share a place, the one that occurs more often comes first.
    assert routing.most_selected(first, -1) == [most[1], most[2], most[0]]
    second = routing.selected_ids(TOKENS, SELECTED[1], 2)
    assert [row.share for row in routing.most_selected(second, -1)] == [0, 0.2, 0.5]
    assert routing.never_selected(second) == (1,)
    # Ids that do not occur are not told of.
    for minimum in (0, 1):
        found = routing.selected_ids(TOKENS, SELECTED[0], minimum)
        assert [row.token for row in found] == [1, 3, 5, 6]
        assert routing.never_selected(found) == (1, 3)


@pytest.mark.parametrize("length", [16, 19, 64, 5])
def test_ranges_of_positions_cover_the_window(length: int) -> None:
    selected = np.zeros((2, length), dtype=bool)
    selected[:, -1] = True
    shares = routing.share_by_position(selected)
    assert len(shares) == min(POSITION_RANGES, length)
    assert shares[:-1] == (0,) * (len(shares) - 1)
    assert shares[-1] == pytest.approx(1 / (length // len(shares)))


def test_every_router_weight_is_counted_once_by_what_became_of_its_token() -> None:
    weights = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    selected = weights > 0.3
    found = routing.weight_histogram(weights, selected)
    assert len(found.edges) == WEIGHT_RANGES + 1
    assert sum(found.processed) == selected.sum()
    assert sum(found.skipped) == (~selected).sum()
    # A range holds both only where 0.3 lies in it.
    assert sum(p > 0 < s for p, s in zip(found.processed, found.skipped, strict=True)) <= 1
    above = [i for i in range(WEIGHT_RANGES) if found.edges[i] > 0.3]
    assert sum(found.skipped[i] for i in above) == 0
    assert sum(found.processed[i] for i in above) > 0


def test_router_weights_far_out_or_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.linspace(0, 1, 5000, dtype=np.float32).reshape(10, 500)
    weights[0, 0] = 1e6
    found = routing.weight_histogram(weights, np.ones(weights.shape, dtype=bool))
    assert found.edges[-1] < 1.01
    assert sum(found.processed) == 5000
    alike = np.full((2, 3), 2.0, dtype=np.float32)
    found = routing.weight_histogram(alike, np.zeros((2, 3), dtype=bool))
    assert (found.edges[0], found.edges[-1]) == (1.5, 2.5)
    assert sum(found.skipped) == 6
    # No more are kept than the first.
    monkeypatch.setattr(routing, "KEPT", 8)
    rising = np.arange(15, dtype=np.float32).reshape(3, 5)
    found = routing.weight_histogram(rising, np.zeros((3, 5), dtype=bool))
    assert sum(found.skipped) == 8
    assert found.edges[-1] < 8
