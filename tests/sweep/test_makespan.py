"""The time that a plan promises is the one that the scheduler takes, by the same durations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from isoflop.config import RunConfig
from isoflop.planning import PlannedRun, make_plan
from isoflop.runs import RunFolder
from isoflop.sweep.schedule.executor import Ended, Message
from sweep_studies import BASELINE, ROUTED, Place, instant, tiny


def speed(config: RunConfig) -> float:
    """FLOP/s of a run, by which runs of one budget last from one to several times as long."""
    return 1e4 * config.model.width * config.model.blocks


class Virtual:
    """Trains in no time and counts the time that it would have taken; an `Executor`."""

    def __init__(self, capacity: int, seconds: dict[str, float], cache: Path) -> None:
        self.capacity, self.cache, self.seconds, self.now = capacity, cache, seconds, 0.0
        self.ends: dict[str, tuple[float, PlannedRun, Path]] = {}

    def start(self, run: PlannedRun, folder: Path) -> None:
        assert len(self.ends) < self.capacity
        run_id = run.config.run_id
        self.ends[run_id] = (self.now + self.seconds[run_id], run, folder)

    def poll(self, seconds: float) -> Sequence[tuple[str, Message]]:
        run_id = min(self.ends, key=lambda one: self.ends[one][0])
        self.now, run, folder = self.ends.pop(run_id)
        instant(run.config, RunFolder(folder), cache=self.cache)
        return [(run_id, Ended("recorded"))]

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        raise AssertionError("nothing stops")


@pytest.mark.parametrize("workers", [1, 2, 5, 64])
def test_a_plan_s_time_is_what_its_schedule_takes(corpus: Path, place: Place, workers: int) -> None:
    grid = {"sizes": 3, "margin": 1, "added_at_most": 0}
    study = tiny(corpus, BASELINE, ROUTED, budgets_flops=(3e8, 9e8), grid=grid)
    plan = make_plan(study, speed=speed, workers=workers)
    seconds = {row.run_id: row.seconds or 0.0 for row in plan.rows}
    executor = Virtual(workers, seconds, place.cache)
    outcome = place.run(study, executor=executor)
    assert outcome.finished == len(plan.rows)
    assert executor.now == pytest.approx(plan.elapsed_seconds)
    idle = 1 - sum(seconds.values()) / (workers * executor.now)
    assert plan.idle_share == pytest.approx(idle)
