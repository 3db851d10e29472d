"""What a model that has learned its text shows: its predictor knows top-k, and top-k leaks."""

from __future__ import annotations

import pytest

from isoflop.config import Cap, DecisionMeasures, Measures
from isoflop.evaluation.measuring import measure
from isoflop.model import build
from learned import Trained

CAUSAL = ("predictor", "threshold", "router")
LENGTH = 32


@pytest.fixture(scope="module")
def found(trained: Trained) -> Measures:
    return measure(trained.model, trained.test, LENGTH, split="test", cap=Cap(window=LENGTH))


def accuracy(one: DecisionMeasures) -> float:
    agreed = [block.agreement.accuracy for block in one.blocks if block.agreement is not None]
    return sum(agreed) / len(agreed)


def test_it_has_learned(trained: Trained, found: Measures) -> None:
    blank = build(trained.config.model, seed=0)
    untrained = measure(blank, trained.test, LENGTH, split="test", limit_tokens=640)
    before, after = (one.under("predictor") for one in (untrained, found))
    assert after.loss.value < 0.3 * before.loss.value
    # Skipping everything agrees in three quarters of the tokens, and so does chance at most.
    assert accuracy(before) < 0.75 < 0.85 < accuracy(after)


@pytest.mark.parametrize("decision", CAUSAL)
def test_a_causal_decision_is_near_top_k_and_owes_the_future_nothing(
    found: Measures, decision: str
) -> None:
    one = found.under(decision)
    assert one.future.changed == 0
    assert one.nominal_capacity == 0.25
    assert one.realised_capacity == pytest.approx(0.25, rel=0.4)
    assert accuracy(one) > 0.8
    assert abs(one.leak.nats.value) < 0.05 * one.loss.value


def test_top_k_looks_ahead(found: Measures) -> None:
    top_k = found.under("top_k")
    assert top_k.future.changed > 0.2
    assert top_k.future.changed_visibly > 0.1


def test_the_training_windows_cap_bounds_every_block(found: Measures) -> None:
    capped = [one for one in found.decisions if one.evaluation.cap is not None]
    assert [one.decision for one in capped] == list(CAUSAL)
    for one in capped:
        free = found.under(one.decision)
        assert max(block.realised_capacity for block in one.blocks) <= 0.25
        assert one.realised_capacity < free.realised_capacity
        assert one.realised_capacity > 0.15
