"""The histogram of router weights: every token counted once, outliers in the outermost ranges."""

from __future__ import annotations

import numpy as np
import pytest

from isoflop.evaluation import router_weights
from isoflop.evaluation.router_weights import RANGES, WeightSums


def test_every_token_is_counted_once_by_what_became_of_it():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(2, 5, 7)).astype(np.float32)
    selected = weights > 0.3
    sums = WeightSums(2)
    sums.add(weights[:, :2], selected[:, :2])
    sums.add(weights[:, 2:], selected[:, 2:])
    for index in range(2):
        found = sums.histogram(index)
        assert len(found.edges) == RANGES + 1
        assert sum(found.processed) == selected[index].sum()
        assert sum(found.skipped) == (~selected[index]).sum()
        # A range holds both only where 0.3 lies in it.
        both = [p > 0 and s > 0 for p, s in zip(found.processed, found.skipped, strict=True)]
        assert sum(both) <= 1
        middle = [i for i in range(RANGES) if found.edges[i] > 0.3]
        assert sum(found.skipped[i] for i in middle) == 0
        assert sum(found.processed[i] for i in middle) > 0


def test_far_weights_do_not_stretch_the_ranges():
    weights = np.linspace(0, 1, 5000, dtype=np.float32).reshape(1, 10, 500)
    weights[0, 0, 0] = 1e6
    found_sums = WeightSums(1)
    found_sums.add(weights, np.ones(weights.shape, dtype=bool))
    found = found_sums.histogram(0)
    assert found.edges[-1] < 1.01
    assert sum(found.processed) == 5000


def test_weights_that_are_all_alike_have_a_range():
    sums = WeightSums(1)
    sums.add(np.full((1, 2, 3), 2.0, dtype=np.float32), np.zeros((1, 2, 3), dtype=bool))
    found = sums.histogram(0)
    assert (found.edges[0], found.edges[-1]) == (1.5, 2.5)
    assert sum(found.skipped) == 6


def test_no_more_are_kept_than_the_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(router_weights, "KEPT", 8)
    sums = WeightSums(1)
    for first in (0.0, 5.0, 50.0):
        weights = np.arange(first, first + 5, dtype=np.float32).reshape(1, 1, 5)
        sums.add(weights, np.zeros(weights.shape, dtype=bool))
    found = sums.histogram(0)
    assert sum(found.skipped) == 8
    assert found.edges[-1] < 8
