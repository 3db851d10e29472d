"""Warm-up, then a cosine that reaches the final share one step behind the last."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from isoflop.config import Linear, RunConfig, Schedule, WarmupStableDecay
from isoflop.training import rate_factor

MakeRun = Callable[..., RunConfig]


def test_warms_up_and_decays(make_run: MakeRun) -> None:
    config = make_run(steps=1000, warmup_fraction=0.1, final_fraction=0.2)
    factors = [rate_factor(config, step) for step in range(1001)]
    assert factors[0] == pytest.approx(0.01)
    assert factors[99] == factors[100] == 1.0
    assert factors[550] == pytest.approx(0.6)
    assert factors[1000] == pytest.approx(0.2)
    assert all(a < b for a, b in pairwise(factors[:100]))
    assert all(a > b for a, b in pairwise(factors[100:]))


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
def test_no_step_has_a_rate_of_zero(make_run: MakeRun, steps: int) -> None:
    for warmup in (0.0, 0.05, 0.9):
        config = make_run(steps=steps, warmup_fraction=warmup, final_fraction=0.0)
        assert all(0 < rate_factor(config, step) <= 1 for step in range(steps))


def test_without_warm_up_the_first_step_is_the_peak(make_run: MakeRun) -> None:
    assert rate_factor(make_run(steps=10, warmup_fraction=0.0), 0) == 1.0


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [
        (Linear(), [1.0, 0.75, 0.5, 0.25]),
        (WarmupStableDecay(decay_fraction=0.4), [1.0, 1.0, 1.0, 0.5]),
        (WarmupStableDecay(decay_fraction=0.4, decay="sqrt"), [1.0, 1.0, 1.0, 1 - 0.5**0.5]),
        (WarmupStableDecay(decay_fraction=1.0), [1.0, 0.75, 0.5, 0.25]),
    ],
)
def test_each_schedule_has_its_shape(
    make_run: MakeRun, schedule: Schedule, shares: list[float]
) -> None:
    config = make_run(steps=10, schedule=schedule, warmup_steps=2, final_fraction=0.0)
    assert [rate_factor(config, step) for step in (0, 1)] == [0.5, 1.0]
    assert [rate_factor(config, step) for step in (2, 4, 6, 8)] == pytest.approx(shares)


def test_a_decay_never_begins_before_the_warm_up_ends(make_run: MakeRun) -> None:
    config = make_run(steps=4, schedule=WarmupStableDecay(decay_fraction=0.9), warmup_steps=9)
    assert [rate_factor(config, step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
