"""Logits up to a token stay as they are when what follows changes, unless top-k decides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.known_leak import LENGTH, A, B, C, leaking_model
from evaluation.test_loss import model_with
from isoflop.config import BlockAttention, Decision, FutureChange, RandomK, TopK
from isoflop.evaluation.future import future_change

LEARNED = TopK(capacity=0.3, router_bce=0.1)
WINDOWS = np.random.default_rng(3).integers(0, 29, (11, 37))


@pytest.mark.parametrize(
    ("depth", "decision"),
    [
        (LEARNED, "predictor"),
        (LEARNED, "threshold"),
        (LEARNED, "router"),
        (RandomK(capacity=0.3), "bernoulli"),
    ],
)
@pytest.mark.parametrize("pairs", [1, 4])
def test_causal_decisions_owe_the_future_nothing(
    depth: object, decision: Decision, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoflop.evaluation.future.PAIRS", pairs)
    found = future_change(model_with(depth), WINDOWS, decision, seed=5)
    assert found.windows == 11
    assert 11 <= found.logits <= 11 * 36
    assert found.changed == 0
    assert found.changed_visibly == 0


@pytest.mark.parametrize("decision", ["predictor", "threshold"])
def test_block_attention_owes_it_nothing_either(decision: Decision) -> None:
    model = model_with(LEARNED, attention=BlockAttention(block_size=3, top_k=2))
    assert future_change(model, WINDOWS, decision).changed == 0


def test_what_depends_on_the_row_or_on_the_whole_batch_is_no_change() -> None:
    model = model_with(LEARNED)
    readout = model.readout

    def rounded(x: Tensor) -> Tensor:
        logits = readout(x)
        row = torch.arange(len(x))[:, None, None]
        return logits + 0.1 * row + (logits > 1).sum()

    model.readout = rounded
    assert future_change(model, WINDOWS, "predictor").changed == 0
    assert future_change(model, WINDOWS, "top_k").changed_visibly > 0.1


def test_top_k_shows_the_future() -> None:
    found = future_change(model_with(LEARNED), WINDOWS, "top_k", seed=5)
    assert found.changed > 0.2
    assert 0.1 < found.changed_visibly <= found.changed


def test_the_random_controls_top_k_reads_no_token() -> None:
    assert future_change(model_with(RandomK(capacity=0.3)), WINDOWS, "top_k").changed == 0


def test_a_known_future_changes_every_logit_that_it_may() -> None:
    model = leaking_model()
    # With two tokens the cut is the first. Any other follower than B makes top-k process A.
    followed_by_b = np.full((9, LENGTH), A)
    followed_by_b[:, 1] = B
    assert future_change(model, followed_by_b, "top_k") == FutureChange(
        windows=9, logits=9, changed=1, changed_visibly=1
    )
    assert future_change(model, followed_by_b, "predictor") == FutureChange(
        windows=9, logits=9, changed=0, changed_visibly=0
    )
    # C may become A, which is processed alike, or B, which is not.
    followed_by_c = np.where(followed_by_b == B, C, followed_by_b)
    assert 0 < future_change(model, followed_by_c, "top_k").changed < 1


def test_is_computed_in_full_precision() -> None:
    model = model_with(LEARNED)
    plain = future_change(model, WINDOWS, "top_k")
    with torch.autocast("cpu", torch.bfloat16):
        assert future_change(model, WINDOWS, "top_k") == plain
