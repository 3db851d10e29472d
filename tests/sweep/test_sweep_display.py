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
from isoflop.sweep.schedule.forecast import Going, View
from sweep_studies import record_of, tiny

STEP = Progress(1200, 5000, 2.3456, 8123.4)


@pytest.fixture
def run() -> PlannedRun:
    study = tiny(Path("text.txt"), Variant(name="Base\x1b[31m[bold]line"))
    return next_runs(study, [])[0]


class Watched:
    """A display on a stopped clock, and what it said."""

    def __init__(self, run: PlannedRun, **options: Any) -> None:
        self.now, self._run, self._out = 1000.0, run, io.StringIO()
        console = Console(file=self._out, width=120, **options)
        self.display = Display(console, clock=lambda: self.now)

    def show(self, step: Progress | None, others: int = 0) -> None:
        going = (Going(self._run, progress=step), *[Going(self._run)] * others)
        seen = View(done=3, expected=10, going=going, elsewhere=1, remaining_seconds=150.0)
        if self.display.is_due:
            self.display.show(seen)

    @property
    def text(self) -> str:
        return self._out.getvalue()


def test_a_terminal_shows_how_it_goes_at_once_and_anew(run: PlannedRun) -> None:
    watched = Watched(run, force_terminal=True, color_system=None)
    with watched.display:
        watched.show(None)
        assert "starting" in watched.text
        watched.now += 1.0
        watched.show(STEP)
    said = watched.text.replace("\n", " ")
    assert "Base\\x1b[31m[bold]line, " in said
    assert "3 of 10 runs done | 1 in another process | about 2 min 30 s left" in said


def test_a_log_gets_a_line_at_the_first_step_and_then_every_half_minute(run: PlannedRun) -> None:
    watched = Watched(run)
    with watched.display:
        watched.show(None)
        assert watched.text == ""
        watched.now += 0.5
        watched.show(STEP)
        size = f"{parameters(run.config.model).total:,}"
        assert watched.text == (
            f"3 of 10 runs done | running: Base\\x1b[31m[bold]line, {size} parameters, "
            "step 1,200 of 5,000, loss 2.346, 8,123 tokens/s | 1 in another process | "
            "about 2 min 30 s left\n"
        )
        for _ in range(300):
            watched.now += 1.0
            watched.show(STEP, others=5)
    assert watched.text.count("\n") == 1 + 300 // 25
    last = watched.text.splitlines()[-1]
    assert last.count("parameters") == 4
    assert "; and 2 more |" in last


def test_a_log_gets_one_line_per_outcome(run: PlannedRun) -> None:
    out, data = io.StringIO(), run.config.data.model_copy(update={"tokenizer": "bpe:300"})
    with Display(Console(file=out, width=40)) as display:
        display.recorded(run, record_of(run.config, loss=1.25), 4, 9)
        display.recorded(run, record_of(run.config, state="failed", reason="a\nb"), 5, 9)
        display.recorded(run, record_of(run.config.model_copy(update={"data": data}), 1.25), 6, 9)
    finished, failed, per_byte = out.getvalue().splitlines()
    assert finished.startswith("[4/9] Base\\x1b[31m[bold]line, ")
    assert finished.endswith("seed 0: validation loss 1.2500, 1 s")
    assert failed.endswith("seed 0: failed: a\\nb")
    assert per_byte.endswith("validation loss 1.2500, 1.2500 bits/byte, 1 s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (7620, "2 h 07 min"),
        (21 * 86400 + 7300, "21 d 02 h"),
    ],
)
def test_times_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text
