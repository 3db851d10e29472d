"""The loss at a stated size and number of tokens."""

import math

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings, predict, predict_point, run_table
from isoflop.fit.surfaces.surface import Surface
from isoflop.fit.words import distance_words

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)


def table(noise: float = 0.0, seed: int = 0, slope: float = 1.0) -> pd.DataFrame:
    """Return 8 sizes at 6 numbers of tokens; training FLOPs are 6 D N^slope."""
    n, d = np.meshgrid(np.geomspace(2e7, 2e9, 8), np.geomspace(1e9, 5e10, 6))
    n, d = n.ravel(), d.ravel()
    draws = np.random.default_rng(seed).standard_normal(len(n))
    losses = TRUE.loss(n, d) * np.exp(noise * draws)
    columns = {"parameters": n, "tokens": d, "budget_flops": 6 * d * n**slope, "loss": losses}
    return run_table(pd.DataFrame(columns), tolerance=0).table


@pytest.mark.parametrize(("n", "d"), [(3e8, 7e9), (7e9, 4e12)])
def test_of_an_exact_law_it_is_the_laws(n: float, d: float) -> None:
    for one in predict_point(table(), n, d):
        assert one.reason is None
        assert one.loss.value == pytest.approx(float(TRUE.loss(n, d)), rel=1e-6)
        assert one.run.value == one.loss.value
        assert one.training_flops == pytest.approx(6 * n * d, rel=1e-6)


@pytest.mark.slow
def test_intervals_hold_the_law_and_a_new_run_as_often_as_they_say() -> None:
    held_law, held_run, studies = 0, 0, 40
    generator = np.random.default_rng(9)
    n, d = 3e9, 2e11
    for study in range(studies):
        runs = table(0.01, seed=study)
        found = predict_point(runs, n, d, settings=FitSettings(resamples=200, seed=study))[1]
        truth = float(TRUE.loss(n, d))
        held_law += found.loss.low <= truth <= found.loss.high
        new = truth * math.exp(0.01 * generator.standard_normal())
        held_run += found.run.low <= new <= found.run.high
        assert found.run.high - found.run.low > found.loss.high - found.loss.low
    # Nominal 95% of 40: below 33 is one in four thousand.
    assert held_law >= 33
    assert held_run >= 33


@pytest.mark.parametrize(
    ("n", "d", "factor"),
    [
        (3e8, 7e9, 1.0),
        (2e9, 1e11, 2.0),
        (8e9, 5e10, 4.0),
        (1e7, 1e9, 2.0),
        (7e10, 4e12, 35 * 80),
    ],
)
def test_how_far_it_is_beyond_the_runs_in_size_tokens_and_compute(n, d, factor) -> None:
    found = predict_point(table(), n, d, settings=FitSettings(resamples=20))
    for one in found:
        assert one.extrapolation == pytest.approx(factor, rel=1e-6)


def test_a_budget_has_the_same_distance() -> None:
    largest = 6 * 2e9 * 5e10
    for factor in (0.5, 1e10):
        found = predict(table(), factor * largest, settings=FitSettings(resamples=20))
        for one in found:
            assert one.extrapolation == pytest.approx(max(1.0, factor), rel=1e-6)


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (None, None),
        (1.0, None),
        (30.0, None),
        (31.0, "31 times beyond the runs"),
        (2500.0, "2,500 times beyond the runs"),
        (1e10, "10 orders of magnitude beyond the runs"),
    ],
)
def test_beyond_thirty_times_it_is_said(factor, words) -> None:
    told = distance_words(factor)
    assert told is None if words is None else told.startswith(words)


def test_optima_follow_the_law_of_the_flops_that_the_table_counts() -> None:
    """With C = 6 D N^0.8 the optimum minimises A N^-alpha + B (6 N^0.8 / C)^beta."""
    budget = 1e20
    sizes = np.geomspace(1e8, 1e12, 400_001)
    losses = TRUE.loss(sizes, budget / 6 / sizes**0.8)
    best = sizes[losses.argmin()]
    for one in predict(table(slope=0.8), budget, settings=FitSettings(resamples=20)):
        if one.way != "minima":
            assert one.parameters.value == pytest.approx(best, rel=1e-4)
            assert one.loss.value == pytest.approx(losses.min(), rel=1e-6)
            assert one.tokens.value == pytest.approx(budget / 6 / best**0.8, rel=1e-4)


def test_without_a_surface_it_says_why() -> None:
    runs = table()
    runs = runs[runs["tokens"] == runs["tokens"].iloc[0]]
    for one in predict_point(runs, 1e9, 1e10):
        assert one.loss is None
        assert one.run is None
        assert one.reason


@pytest.mark.parametrize(("n", "d", "name"), [(0, 1e9, "parameters"), (1e9, -1, "tokens")])
@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_numbers_must_be_positive(n: float, d: float, name: str, bad: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is"):
        predict_point(table(), bad if n == 0 else n, bad if d == -1 else d)


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(ValueError, match="resamples is 3; expected at least 20"):
        predict(table(), 1e20, settings=FitSettings(resamples=3))
