"""Scores in tasks: known sigmoids are found again, and predictions hold what is simulated."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.estimate import Estimate
from isoflop.fit.tasks import FEWEST, fit_sigmoid, predict_score, sigmoid

CURVE = (0.25, 0.6, 5.0, 2.4)
"""Chance, height above it, slope, and the loss half way."""


def test_a_sigmoid_is_found_again_without_noise() -> None:
    losses = np.linspace(1.6, 3.4, 12)
    found = fit_sigmoid(losses, sigmoid(losses, CURVE), np.full(12, 0.01))
    np.testing.assert_allclose(found, CURVE, rtol=1e-3)
    assert sigmoid(100.0, CURVE) == pytest.approx(0.25)
    assert sigmoid(-100.0, CURVE) == pytest.approx(0.85)


def test_intervals_of_predicted_scores_hold_what_is_simulated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("isoflop.fit.tasks.RESAMPLES", 60)
    rng = np.random.default_rng(0)
    held, true = 0, float(sigmoid(2.0, CURVE))
    for seed in range(20):
        losses = np.repeat(np.linspace(2.1, 3.3, 8), 2) + 0.01 * rng.standard_normal(16)
        errors = np.full(16, 0.015)
        scores = np.clip(sigmoid(losses, CURVE) + errors * rng.standard_normal(16), 0, 1)
        loss = 2.0 + 0.03 * rng.standard_normal()
        told = Estimate(value=loss, low=loss - 0.06, high=loss + 0.06, level=0.95)
        found = predict_score(losses, scores, errors, told, seed=seed)
        low, high = found.ends
        assert high - low < 0.4
        held += low <= true <= high
    assert held >= 16


def test_a_predicted_loss_without_an_interval_leaves_that_of_the_runs() -> None:
    losses = np.linspace(1.6, 3.4, FEWEST)
    scores, errors = sigmoid(losses, CURVE), np.full(FEWEST, 0.01)
    wide = predict_score(losses, scores, errors, Estimate(value=2.4, low=2.0, high=2.8, level=0.95))
    narrow = predict_score(losses, scores, errors, Estimate(value=2.4))
    assert wide.value == narrow.value == pytest.approx(0.55, abs=0.02)
    assert np.ptp(wide.ends) > 5 * np.ptp(narrow.ends)


def test_fewer_runs_are_refused() -> None:
    few = np.linspace(2.0, 3.0, FEWEST - 1)
    for losses in (few, np.full(FEWEST, 2.0)):
        with pytest.raises(ValueError, match="expected 8 or more, of several losses"):
            predict_score(losses, losses / 4, losses / 100, Estimate(value=2.0))
