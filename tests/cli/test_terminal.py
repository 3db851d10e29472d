"""What is printed: tables fit the terminal, numbers are short, and sentences tell what to do."""

import io

import pytest
from rich.console import Console

from isoflop.estimate import Power, SeedNoise
from isoflop.hardware.accelerators import accelerator_speed
from isoflop.planning import Edge, make_plan
from isoflop.planning.edges import Setting
from isoflop.planning.plan import cost_rows
from isoflop.sweep import status
from isoflop.terminal.plan import cost_tables, plan_tables, power_words
from isoflop.terminal.status import edge_words, status_tables
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
        (amount, 99.7 * 86400, "100 d"),
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


EDGE = Edge(
    variant="Baseline",
    budget_flops=1.3e11,
    minimum_parameters=20_000,
    side="smaller",
    present=0,
    wanted=2,
    sizes=(13_000, 8_123),
    end=None,
    seconds=180.0,
    settings=(Setting(name="added_at_most", now=3, needed=5),),
)


SMALLEST = "Baseline at 1.3e11: the lowest loss is at the smallest size trained (20K)"
MORE = "2 sizes more, 13K and 8.12K, about 3 min 00 s of training, would show whether it lies there"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, f"{SMALLEST}; {MORE}; grid.added_at_most = 3 keeps them out: set 5"),
        (
            {
                "side": "larger",
                "present": 1,
                "sizes": (31_400,),
                "seconds": 42.0,
                "end": "steps",
                "settings": (Setting(name="maximum_parameters", now=25e3, needed=31_400),),
            },
            "Baseline at 1.3e11: the lowest loss is at 20K, with 1 larger size of the 2 wanted; "
            "1 size more, 31.4K, about 42 s of training, would show whether it lies there (whole "
            "steps of the next larger size miss the budget by over 1% beyond); "
            "grid.maximum_parameters = 25000 keeps it out: set 32000",
        ),
        (
            {"settings": (Setting(name="minimum_parameters", now=15e3, needed=8_123),)},
            f"{SMALLEST}; {MORE}; grid.minimum_parameters = 15000 keeps them out: set 8100",
        ),
        (
            {"sizes": (), "end": "shapes", "settings": (), "seconds": 0.0},
            f"{SMALLEST}, and the family of shapes has no smaller size",
        ),
    ],
)
def test_it_is_said_what_would_bracket_a_minimum(changes: dict[str, object], words: str) -> None:
    assert edge_words(EDGE.model_copy(update=changes)) == words


NOISE = SeedNoise(
    spread=0.00912,
    variants={"Baseline": 0.009},
    own_spread=0.009,
    apart_spread=0.0,
    shared_spread=0.0,
    correlation=0.3,
    curvature=0.05,
    runs=40,
)
POWER = Power(
    seeds=5,
    looks_from=None,
    resolves=0.0123,
    half_width=0.008,
    margin=0.005,
    margin_seeds=21,
    noise=NOISE,
    source="results/mod-variants",
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {},
            "With 5 seeds a difference of 0.012 nats will be resolved at 95% in 80% of studies; "
            "0.0050 wants 21 seeds.",
        ),
        (
            {"seeds": 1, "resolves": None, "margin_seeds": None},
            "With 1 seed no difference will be resolved; 0.0050 wants over 1,000 seeds.",
        ),
        (
            {"seeds": 20, "looks_from": 3},
            "With up to 20 seeds, looked at from 3 on, a difference of 0.012 nats will be resolved "
            "at 95% in 80% of studies; 0.0050 wants 21 seeds at one look.",
        ),
    ],
)
def test_what_a_study_will_resolve_is_said_with_what_it_assumes(changes, words) -> None:
    first, second = power_words(POWER.model_copy(update=changes))
    assert first == words
    assert second == (
        "Taken to be: losses on a parabola, normal noise of 0.0091 as in 40 runs of "
        "results/mod-variants (correlation of paired seeds 0.30), one comparison."
    )
