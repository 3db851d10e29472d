"""What a person sees, on a terminal and in a log."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isoflop.config import Variant
from isoflop.costs import parameters
from isoflop.notation import duration
from isoflop.planning import PlannedRun, next_runs
from isoflop.runs import Progress
from isoflop.sweep.schedule.display import Display
from isoflop.sweep.schedule.forecast import WINDOW_SECONDS, Going, Meter, View
from sweep_studies import record_of, tiny


@pytest.fixture
def run() -> PlannedRun:
    study = tiny(Path("text.txt"), Variant(name="Base\x1b[31m[bold]line"))
    return next_runs(study, [])[0]


def view(run: PlannedRun, step: Progress | None, **changes: Any) -> View:
    fields: dict[str, Any] = {
        "states": {"finished": 2, "diverged": 1},
        "going": (Going(run, progress=step),),
        "left": 3,
        "elsewhere": 1,
        "added": 2,
        "flops_per_second": 4e9,
        "remaining_seconds": 150.0,
    }
    return View(**{**fields, **changes})


class Watched:
    """A display on a stopped clock, and what it said."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self._out = io.StringIO()
        console = Console(file=self._out, width=120, **options)
        self.display = Display(console, clock=lambda: self.now)

    def show(self, seen: View) -> None:
        if self.display.is_due:
            self.display.show(seen)

    @property
    def text(self) -> str:
        return self._out.getvalue()


STEP = Progress(1200, 5000, 2.3456, 8123.4)


def test_a_terminal_shows_each_run_and_the_whole(run: PlannedRun) -> None:
    watched = Watched(force_terminal=True, color_system=None)
    with watched.display:
        watched.show(view(run, None))
        assert "starting" in watched.text
        watched.now += 1.0
        watched.show(view(run, STEP))
    assert "Base\\x1b[31m[bold]line" in watched.text
    assert "1,200/" in watched.text
    assert "2.346" in watched.text
    assert "8,123" in watched.text
    assert (
        "2 finished, 1 running, 3 left, usually 2 added, 1 diverged, 1 in another process, "
        "4.0 GFLOP/s, about 2 min 30 s left" in watched.text.replace("\n", " ")
    )


def test_a_log_gets_a_line_at_the_first_step_and_then_every_half_minute(run: PlannedRun) -> None:
    watched = Watched()
    with watched.display:
        watched.show(view(run, None))
        assert watched.text == ""
        watched.now += 0.5
        watched.show(view(run, STEP))
        size = f"{parameters(run.config.model).total:,}"
        assert watched.text == (
            f"3 of 10 runs done | running: Base\\x1b[31m[bold]line, {size} parameters, "
            "step 1,200 of 5,000, loss 2.346 | 1 in another process | about 2 min 30 s left\n"
        )
        for _ in range(300):
            watched.now += 1.0
            watched.show(view(run, STEP))
    assert watched.text.count("\n") == 1 + 300 // 25


def test_a_log_of_many_runs_names_some(run: PlannedRun) -> None:
    watched = Watched()
    going = (Going(run, progress=STEP), *[Going(run)] * 5)
    watched.show(view(run, None, going=going, elsewhere=0, remaining_seconds=None))
    assert watched.text.count("parameters") == 4
    assert watched.text.endswith("; and 2 more\n")
    assert watched.text.startswith("3 of 14 runs done")


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


def test_a_loss_per_token_is_told_per_byte_too(run: PlannedRun) -> None:
    out, data = io.StringIO(), run.config.data.model_copy(update={"tokenizer": "bpe:300"})
    with Display(Console(file=out)) as display:
        display.recorded(run, record_of(run.config.model_copy(update={"data": data}), 1.25), 1, 1)
    assert "validation loss 1.2500, 1.2500 bits/byte, 1 s" in out.getvalue()


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
