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


def measured(runs: list[PlannedRun], workers: int = 1, held_out: int = 0) -> Forecast:
    return Forecast(workers, [(run, SPEED) for run in runs], held_out_tokens=held_out)


def stepped(run: PlannedRun, *seen: tuple[int, float]) -> Going:
    """A run that was seen at these percents of its steps, at these seconds."""
    one = Going(run)
    for percent, second in seen:
        one.stepped(Progress(percent, 100, 2.0, 1e3), second)
    return one


def steps_seconds(run: PlannedRun, speed: float = SPEED) -> float:
    return achieved_flops(run.config) / speed


def evaluation_seconds(run: PlannedRun, decisions: int, tokens: int = HELD_OUT) -> float:
    """Both held-out splits under each decision."""
    config = run.config
    per_token = forward_flops(config.model, config.data.sequence_length, config.convention)
    return 2 * decisions * tokens * per_token.per_token / SPEED


def test_before_anything_ran_the_measured_speeds_count(runs: list[PlannedRun]) -> None:
    dense, routed = runs[0], runs[3]
    forecast = measured(runs, 2, HELD_OUT)
    alone = START_SECONDS + steps_seconds(dense) + evaluation_seconds(dense, 1)
    assert forecast.seconds_left([], [dense], 0) == pytest.approx(alone)
    # Top-k routing is evaluated under three decisions.
    longer = START_SECONDS + steps_seconds(routed) + evaluation_seconds(routed, 3)
    assert forecast.seconds_left([], [dense, routed], 0) == pytest.approx(max(alone, longer))
    assert forecast.seconds_left([], [dense] * 4, 0) == pytest.approx(2 * alone)
    # What a run asks for counts where the split is larger.
    asked = dense.config.evaluation_tokens
    whole = measured(runs, 1, 10 * asked).seconds_left([], [dense], 0)
    expected = START_SECONDS + steps_seconds(dense) + evaluation_seconds(dense, 1, asked)
    assert whole == pytest.approx(expected)
    # Others have all the runs.
    assert forecast.seconds_left([], [], 2) is None


def test_what_the_grid_usually_adds_counts(runs: list[PlannedRun]) -> None:
    speeds = [(runs[0], 1e6), (runs[1], 2e6)]
    forecast = Forecast(1, speeds, added_flops=4e8, held_out_tokens=0)
    alone = START_SECONDS + steps_seconds(runs[0])
    # At the mean time of a FLOP.
    added = START_SECONDS + 4e8 * (1 / 1e6 + 1 / 2e6) / 2
    assert forecast.seconds_left([], [runs[0]], 2) == pytest.approx(alone + 2 * added)


def test_a_run_that_was_not_measured_is_as_fast_as_its_variants_nearest(
    runs: list[PlannedRun],
) -> None:
    speeds = [(runs[0], 1e6), (runs[2], 4e6), (runs[3], 9e6)]
    forecast = Forecast(1, speeds, held_out_tokens=0)
    other_seed = replace(runs[2], config=runs[2].config.model_copy(update={"seed": 7}))
    stranger = replace(runs[5], variant="Unknown")
    for run, known in ((other_seed, (4e6,)), (runs[5], (9e6,)), (stranger, (4e6, 9e6))):
        expected = [START_SECONDS + steps_seconds(run, speed) for speed in known]
        assert forecast.seconds_left([], [run], 0) in map(pytest.approx, expected)


def test_what_runs_corrects_what_was_measured(runs: list[PlannedRun]) -> None:
    forecast = measured(runs)
    # Half of the steps in twice their time.
    expected = 0.5 * steps_seconds(runs[0])
    one = stepped(runs[0], (10, 500.0), (60, 500.0 + 2 * expected))
    factor = (BELIEF_SECONDS + 2 * expected) / (BELIEF_SECONDS + expected)
    rest = 0.4 * steps_seconds(runs[0])
    assert forecast.seconds_left([one], [], 0) == pytest.approx(rest * factor)
    waiting = START_SECONDS + steps_seconds(runs[1])
    assert forecast.seconds_left([one], [runs[1]], 0) == pytest.approx((rest + waiting) * factor)
    # What went to its end counts afterwards, and what nothing was heard of does not.
    forecast.finished(Going(runs[2]), 900.0)
    whole = steps_seconds(runs[0])
    forecast.finished(stepped(runs[0], (0, 500.0)), 500.0 + 3 * whole)
    factor = (BELIEF_SECONDS + 3 * whole) / (BELIEF_SECONDS + whole)
    assert forecast.seconds_left([], [runs[1]], 0) == pytest.approx(waiting * factor)


def test_without_measured_speeds_nothing_is_promised_before_something_ran(
    runs: list[PlannedRun],
) -> None:
    forecast = Forecast(1, held_out_tokens=0)
    assert forecast.seconds_left([Going(runs[0])], [runs[1]], 0) is None
    one = stepped(runs[0], (25, 500.0), (75, 510.0))
    assert forecast.seconds_left([one], [], 0) == pytest.approx(5.0)
