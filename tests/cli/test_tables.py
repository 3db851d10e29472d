"""Tables fit the terminal, and numbers are short enough to be read in a column."""

import io

import pytest
from rich.console import Console

from isoflop.hardware.accelerators import accelerator_speed
from isoflop.planning import make_plan
from isoflop.planning.plan import cost_rows
from isoflop.sweep import status
from isoflop.terminal.plan import cost_tables, plan_tables
from isoflop.terminal.status import status_tables
from isoflop.terminal.tables import amount, size, table


def printed(renderables, width):
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()


@pytest.fixture(params=["costs", "plan", "status"])
def renderables(request, study, committed, tmp_path):
    several = study.model_copy(update={"budgets_flops": (1.5e11, 6e18), "tokens_per_step": None})
    match request.param:
        case "costs":
            return cost_tables(cost_rows(several))
        case "plan":
            speed = accelerator_speed("h100-sxm", 0.4)
            return list(plan_tables(make_plan(several, speed=speed), "as if"))
        case _:
            return list(status_tables(status(study, tmp_path / "runs", tmp_path / "results"), "x"))


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_and_no_number_is_cut(renderables, width):
    text = printed(renderables, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "\N{HORIZONTAL ELLIPSIS}" not in text


def test_names_are_inert():
    made = table("[bold]t[/bold]", ["[red]\x1b[31m"], {"[i]": str}, names=["[i]"])
    text = printed([made], 80)
    assert r"[red]\x1b[31m" in text
    assert "[bold]t[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        (amount, 0.0, "0 s"),
        (amount, 3e-4, "< 0.1 s"),
        (amount, 8.13, "8.1 s"),
        (amount, 720, "12 min"),
        (amount, 11160, "3.1 h"),
        (amount, 2.1e5, "2.4 d"),
        (size, 999, "999 B"),
        (size, 1500, "1.5 KB"),
        (size, 999.7e6, "1 GB"),
    ],
)
def test_amounts_of_time_and_memory(words, value, expected):
    assert words(value) == expected


def test_times_and_sizes_stay_short():
    for exponent in range(80):
        assert len(amount(1.5**exponent)) <= 20
        if 1.5**exponent < 1e7:
            assert len(amount(1.5**exponent)) <= 7
        if 1.5**exponent < 1e14:
            assert len(size(1.5**exponent)) <= 7


def test_a_plan_of_no_time_is_not_about_less_than_something(study):
    plan = make_plan(study, speed=lambda config: 1e30)
    text = printed(plan_tables(plan, "as if"), 120)
    assert "FLOPs, less than 0.1 s" in text
    assert "about <" not in text
