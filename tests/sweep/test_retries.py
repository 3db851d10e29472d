"""What attempts on disk, and silence, say of whether a run is tried again."""

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from isoflop.planning import next_runs
from isoflop.runs import Attempt
from isoflop.sweep import Execution, Ledger
from isoflop.sweep.schedule import scheduler
from isoflop.sweep.schedule.attempts import given_up
from isoflop.sweep.schedule.display import Display
from isoflop.sweep.schedule.forecast import Forecast
from sweep_studies import tiny


@pytest.mark.parametrize(
    ("endings", "verdict"),
    [
        ([], None),
        ([(0, "failed")] * 2, None),
        ([(0, "failed")] * 3, "reason 3"),
        ([(0, "failed"), (0, None), (0, "failed"), (0, None), (0, "failed")], "reason 5"),
        ([(0, "failed"), (0, "failed"), (4, "failed"), (4, "failed")], None),
        ([(0, "failed"), (4, "failed"), (4, "failed"), (4, "failed")], "reason 4"),
        ([(3, None)] * 9, None),
        ([(3, None)] * 10, "killed 10 times from the same checkpoint"),
        ([(3, None)] * 9 + [(8, None)], None),
        ([(0, "preempted")] * 20, None),
    ],
)
def test_a_run_is_given_up_when_it_gains_nothing(endings, verdict) -> None:
    made = [
        Attempt(number, step, ending, f"reason {number}" if ending == "failed" else None)
        for number, (step, ending) in enumerate(endings, start=1)
    ]
    found = given_up(made)
    assert (found is None) == (verdict is None)
    assert verdict is None or (found or "").startswith(verdict)


class Silent:
    """Trains nothing, one run at a time; each wait takes so long and ends with a sign or none."""

    capacity = 1

    def __init__(self, *waits: tuple[float, bool]) -> None:
        self.waits = list(waits)
        self.now = 100.0
        self.polls = 0
        self.cancelled_at: list[int] = []

    def start(self, run, folder) -> None:
        self.run_id = run.config.run_id

    def poll(self, _: float):
        passed, heard = self.waits.pop(0) if self.waits else (1.0, False)
        self.now += passed
        self.polls += 1
        return [(self.run_id, None)] if heard else []

    def cancel(self, run_id: str, *, at_once: bool) -> None:
        self.cancelled_at.append(self.polls)


def test_a_pause_of_the_scheduler_is_nobodys_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tiny(tmp_path / "text.txt")
    executor = Silent((1.0, False), (1.0, True), (36_000.0, False))
    monkeypatch.setattr(scheduler, "time", SimpleNamespace(monotonic=lambda: executor.now))
    outcome = scheduler.Scheduler(
        Ledger(study, tmp_path / "study", None),
        lambda asked, records: [] if records else next_runs(asked, [])[:1],
        executor,
        Forecast(1),
        Display(Console(file=io.StringIO())),
        Execution(stall_seconds=5.0),
        "0" * 64,
    ).run()
    assert (outcome.failed, outcome.left) == (1, 0)
    # The pause of ten hours counts as two seconds.
    assert executor.cancelled_at == [6, 12, 18]
