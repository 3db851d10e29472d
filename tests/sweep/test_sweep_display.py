"""What a person sees, on a terminal and in a log."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from isoflop.config import Variant
from isoflop.planning import PlannedRun, next_runs
from isoflop.sweep.display import Display, duration
from isoflop.sweep.progress import WINDOW_SECONDS, Going, Meter, View
from isoflop.sweep.worker import Step
from sweep_studies import record_of, tiny


@pytest.fixture
def run() -> PlannedRun:
    study = tiny(Path("text.txt"), Variant(name="Base\x1b[31m[bold]line"))
    return next_runs(study, [])[0]


def view(run: PlannedRun, step: Step | None) -> View:
    return View(
        finished=2,
        diverged=1,
        failed=0,
        going=(Going(run, step),),
        left=3,
        elsewhere=1,
        flops_per_second=4e9,
        remaining_flops=6e11,
    )


def shown(run: PlannedRun, step: Step | None, **options) -> str:
    out = io.StringIO()
    console = Console(file=out, width=120, **options)
    with Display(console) as display:
        if display.is_due:
            display.show(view(run, step))
    return out.getvalue()


def test_a_terminal_shows_each_run_and_the_whole(run: PlannedRun) -> None:
    text = shown(run, Step(1200, 5000, 2.3456, 8123.4), force_terminal=True, color_system=None)
    assert "Base\\x1b[31m[bold]line" in text
    assert "1,200/" in text
    assert "2.346" in text
    assert "8,123" in text
    assert "2 finished, 1 running, 3 left, 1 diverged, 1 in another process, 4.0 GFLOP/s" in text
    assert "about 2 min 30 s to go as planned so far" in text


def test_a_run_without_a_step_is_starting(run: PlannedRun) -> None:
    assert "starting" in shown(run, None, force_terminal=True)


def test_a_log_gets_no_table(run: PlannedRun) -> None:
    assert shown(run, None) == ""


def test_a_log_gets_one_line_per_outcome(run: PlannedRun) -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=40)) as display:
        display.recorded(run, record_of(run.config, loss=1.25), 4, 9)
        display.recorded(run, record_of(run.config, state="failed", reason="a\nb"), 5, 9)
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[4/9] Base\\x1b[31m[bold]line, ")
    assert lines[0].endswith("seed 0: validation loss 1.2500, 1 s")
    assert lines[1].endswith("seed 0: failed: a\\nb")


def test_throughput_is_that_of_the_last_minutes() -> None:
    now = [0.0]
    meter = Meter(clock=lambda: now[0])
    assert meter.flops_per_second == 0
    now[0] = 10.0
    meter.add(50.0)
    assert meter.flops_per_second == 5.0
    now[0] = 10.0 + 2 * WINDOW_SECONDS
    assert meter.flops_per_second == 0
    meter.add(WINDOW_SECONDS)
    assert meter.flops_per_second == 1.0


def test_time_left_is_unknown_before_anything_was_measured(run: PlannedRun) -> None:
    empty = View(
        finished=0,
        diverged=0,
        failed=0,
        going=(),
        left=1,
        elsewhere=0,
        flops_per_second=0.0,
        remaining_flops=1.0,
    )
    assert empty.remaining_seconds is None
    assert view(run, None).remaining_seconds == 150


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
