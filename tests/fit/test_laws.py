"""Laws of the optimal size keep their interval, or say why they have none."""

import numpy as np
import pytest

from isoflop.fit.curves.systematic import SURE, Systematic
from isoflop.fit.laws.optima import drawn_slopes, minimum_law

BUDGETS = [1e18 * 3.0**i for i in range(12)]
POINTS = {c: 0.1 * c**0.5 for c in BUDGETS}


def draws(budgets: list[float]) -> dict[float, np.ndarray]:
    rng = np.random.default_rng(0)
    return {c: np.log(0.1 * c**0.5) + 0.1 * rng.standard_normal(4000) for c in budgets}


@pytest.mark.parametrize("without", [0, 1, 6])
def test_budgets_without_noise_leave_the_interval_to_the_others(without: int) -> None:
    law = minimum_law("parabola", POINTS, draws(BUDGETS[without:]), {}, level=0.95)
    assert law.a.value == pytest.approx(0.5)
    x = np.log(BUDGETS[without:])
    half = 1.96 * 0.1 / np.sqrt(np.sum((x - x.mean()) ** 2))
    assert law.a.low == pytest.approx(0.5 - half, abs=0.1 * half)
    assert law.a.high == pytest.approx(0.5 + half, abs=0.1 * half)
    assert (law.interval_note is None) == (without == 0)
    if without:
        assert f"leaves out {without} of 12 budgets" in law.interval_note


def test_a_law_without_an_interval_says_why() -> None:
    alone = minimum_law("parabola", POINTS, draws(BUDGETS[:1]), {}, level=0.95)
    assert (alone.a.low, alone.a.high) == (None, None)
    assert "no interval: nothing tells" in alone.interval_note
    refused = {c: np.full(4000, np.nan) for c in BUDGETS}
    none = minimum_law("parabola", POINTS, refused, {}, level=0.95)
    assert none.a.low is None
    assert "hardly any noisy copy" in none.interval_note


def test_a_bias_that_grows_with_the_budget_is_a_bias_of_the_exponent() -> None:
    x = np.log(BUDGETS)
    biased = {c: Systematic(np.zeros(1), np.array([0.02 * np.log(c)])) for c in BUDGETS}
    law = minimum_law("parabola", POINTS, {}, biased, level=0.95)
    assert law.systematic == pytest.approx(SURE * 0.02)
    assert law.a.low == pytest.approx(0.5 - SURE * 0.02)
    assert "no noise in the interval" in law.interval_note
    # A bias that is the same everywhere is none of the exponent.
    constant = {c: Systematic(np.zeros(1), np.array([0.3])) for c in BUDGETS}
    assert minimum_law("parabola", POINTS, {}, constant, level=0.95).systematic < 1e-9
    # By surfaces that differ between budgets, signs do not cancel.
    mixed = {**constant, BUDGETS[0]: Systematic(np.zeros(2), np.array([0.3, -0.3]))}
    weights = np.abs(x - x.mean()) / np.sum((x - x.mean()) ** 2)
    told = minimum_law("parabola", POINTS, {}, mixed, level=0.95).systematic
    assert told == pytest.approx(SURE * 0.3 * weights.sum())


def test_a_copy_without_a_minimum_at_one_budget_has_the_slope_of_the_others() -> None:
    sizes = np.array([[1.0, 2.0, 4.0], [1.0, np.nan, 3.0], [np.nan, np.nan, 3.0]])
    found = drawn_slopes(np.exp([0.0, 1.0, 2.0]).tolist(), list(sizes.T))
    assert found[:2].tolist() == pytest.approx([1.5, 1.0])
    assert np.isnan(found[2])
