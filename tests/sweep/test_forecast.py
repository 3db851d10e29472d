"""The time left: by measured speeds at first, by what ran as soon as something did."""

from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.costs import forward_flops
from isoflop.planning import PlannedRun, achieved_flops, next_runs
from isoflop.runs import Progress
from isoflop.sweep.schedule.forecast import BELIEF_SECONDS, START_SECONDS, Forecast, Going
from sweep_studies import BASELINE, ROUTED, tiny

HELD_OUT = 100
SPEED = 1e6


@pytest.fixture
def runs() -> list[PlannedRun]:
    """Three of the baseline, then three of a routed variant, each of 300 s at the speed above."""
    return next_runs(tiny(Path("text.txt"), BASELINE, ROUTED), [])


def rates(runs: list[PlannedRun]) -> list[tuple[PlannedRun, float]]:
    return [(run, SPEED) for run in runs]


def stepped(run: PlannedRun, *seen: tuple[int, float]) -> Going:
    """A run that was seen at these percents of its steps, at these seconds."""
    one = Going(run)
    for percent, second in seen:
        one.stepped(Progress(percent, 100, 2.0, 1e3), second)
    return one


def steps_seconds(run: PlannedRun, speed: float = SPEED) -> float:
    return achieved_flops(run.config) / speed


def evaluation_seconds(run: PlannedRun, decisions: int, speed: float = SPEED) -> float:
    """Both held-out splits under each decision."""
    config = run.config
    per_token = forward_flops(config.model, config.data.sequence_length, config.convention)
    return 2 * decisions * HELD_OUT * per_token.per_token / speed


def test_before_anything_ran_the_measured_speeds_count(runs: list[PlannedRun]) -> None:
    dense, routed = runs[0], runs[3]
    forecast = Forecast(2, rates(runs), held_out_tokens=HELD_OUT)
    alone = START_SECONDS + steps_seconds(dense) + evaluation_seconds(dense, 1)
    assert forecast.seconds_left([], [dense], 0) == pytest.approx(alone)
    # Top-k routing is evaluated under three decisions.
    longer = START_SECONDS + steps_seconds(routed) + evaluation_seconds(routed, 3)
    assert forecast.seconds_left([], [dense, routed], 0) == pytest.approx(max(alone, longer))
    assert forecast.seconds_left([], [dense] * 4, 0) == pytest.approx(2 * alone)


def test_what_the_grid_usually_adds_counts(runs: list[PlannedRun]) -> None:
    speeds = [(runs[0], 1e6), (runs[1], 2e6)]
    forecast = Forecast(1, speeds, added_flops=4e8, held_out_tokens=0)
    alone = START_SECONDS + steps_seconds(runs[0])
    # At the mean time of a FLOP.
    added = START_SECONDS + 4e8 * (1 / 1e6 + 1 / 2e6) / 2
    assert forecast.seconds_left([], [runs[0]], 2) == pytest.approx(alone + 2 * added)


def test_a_small_split_bounds_the_evaluation(runs: list[PlannedRun]) -> None:
    whole = Forecast(1, rates(runs)).seconds_left([], runs[:1], 0)
    bounded = Forecast(1, rates(runs), held_out_tokens=0).seconds_left([], runs[:1], 0)
    assert whole is not None
    assert bounded == pytest.approx(START_SECONDS + steps_seconds(runs[0]))
    assert whole > bounded


def test_a_run_that_was_not_measured_is_as_fast_as_its_variants_nearest(
    runs: list[PlannedRun],
) -> None:
    speeds = [(runs[0], 1e6), (runs[2], 4e6), (runs[3], 9e6)]
    forecast = Forecast(1, speeds, held_out_tokens=0)

    def left(run: PlannedRun) -> float | None:
        return forecast.seconds_left([], [run], 0)

    other_seed = replace(runs[2], config=runs[2].config.model_copy(update={"seed": 7}))
    assert left(other_seed) == pytest.approx(START_SECONDS + steps_seconds(runs[2], 4e6))
    assert left(runs[5]) == pytest.approx(START_SECONDS + steps_seconds(runs[5], 9e6))
    stranger = replace(runs[5], variant="Unknown")
    assert left(stranger) in [
        pytest.approx(START_SECONDS + steps_seconds(stranger, speed)) for speed in (4e6, 9e6)
    ]


def test_what_runs_corrects_what_was_measured(runs: list[PlannedRun]) -> None:
    forecast = Forecast(1, rates(runs), held_out_tokens=0)
    # Half of the steps in twice their time.
    expected = 0.5 * steps_seconds(runs[0])
    one = stepped(runs[0], (10, 500.0), (60, 500.0 + 2 * expected))
    factor = (BELIEF_SECONDS + 2 * expected) / (BELIEF_SECONDS + expected)
    rest = 0.4 * steps_seconds(runs[0])
    assert forecast.seconds_left([one], [], 0) == pytest.approx(rest * factor)
    waiting = START_SECONDS + steps_seconds(runs[1])
    assert forecast.seconds_left([one], [runs[1]], 0) == pytest.approx((rest + waiting) * factor)


def test_a_run_that_went_to_its_end_counts_afterwards(runs: list[PlannedRun]) -> None:
    forecast = Forecast(1, rates(runs), held_out_tokens=0)
    expected = steps_seconds(runs[0])
    forecast.finished(Going(runs[2]), 900.0)  # of which nothing was heard
    forecast.finished(stepped(runs[0], (0, 500.0)), 500.0 + 3 * expected)
    factor = (BELIEF_SECONDS + 3 * expected) / (BELIEF_SECONDS + expected)
    assert forecast.seconds_left([], [runs[1]], 0) == pytest.approx(
        (START_SECONDS + steps_seconds(runs[1])) * factor
    )


def test_without_measured_speeds_nothing_is_promised_before_something_ran(
    runs: list[PlannedRun],
) -> None:
    forecast = Forecast(1, held_out_tokens=0)
    assert forecast.seconds_left([Going(runs[0])], [runs[1]], 0) is None
    one = stepped(runs[0], (25, 500.0), (75, 510.0))
    assert forecast.seconds_left([one], [], 0) == pytest.approx(5.0)


def test_nothing_is_expected_of_what_others_have(runs: list[PlannedRun]) -> None:
    assert Forecast(1, rates(runs)).seconds_left([], [], 2) is None
