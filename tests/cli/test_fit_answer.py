"""What `isoflop fit` prints by default: the answer first, and no more than a screen."""

import functools
import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from isoflop.estimate import Estimate
from isoflop.fit import FitSettings, fit_runs, run_table
from isoflop.fit.results import FittedSurface
from isoflop.fit.surfaces.bootstrap import QUANTITIES
from isoflop.fit.surfaces.goodness import RunMiss
from isoflop.fit.tables.sieve import LeftOutRows
from isoflop.terminal.fit_answer import fit_answer, fitted_curves, shown_curves
from isoflop.terminal.fit_details import fit_details
from isoflop.terminal.tables import LINES

BUDGETS = np.geomspace(6e17, 1e22, 28)


def runs(budgets, sizes, seeds=1):
    """Return runs near E 1.8, A 480, B 2100, alpha .35, beta .37; a later variant 0.02 lower."""
    rng = np.random.default_rng(0)
    rows = [
        (variant, seed, budget, size, 0.002 * rng.standard_normal() - 0.02 * index)
        for index, (variant, own) in enumerate(budgets.items())
        for i, budget in enumerate(own)
        for size in np.sqrt(budget / 120) * 1.5 ** np.linspace(-2.2, 2.2, sizes[i % len(sizes)])
        for seed in range(seeds)
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "budget", "params", "loss"])
    tokens = table["budget"] / 6 / table["params"]
    table["loss"] += 1.8 + 480 / table["params"] ** 0.35 + 2100 / tokens**0.37
    return table if len(budgets) > 1 else table.drop(columns="variant")


SHAPES = {
    "one variant": ({"all": BUDGETS}, (9, 8, 8, 9, 8, 8), 1),
    "no budget in common": (
        {"dense": BUDGETS[:10], "moe": BUDGETS[10:19], "mod": BUDGETS[19:]},
        (9, 8, 8),
        1,
    ),
    "all in common": (dict.fromkeys(("dense", "moe", "mod"), BUDGETS[::9]), (5,), 2),
    "many refused": ({"all": BUDGETS}, (2, 5, 5), 1),
    "one budget": ({"all": BUDGETS[:1]}, (7,), 2),
    "ten variants": (dict.fromkeys("abcdefghij", BUDGETS[:1]), (7,), 2),
}


SURFACE = FittedSurface(
    estimator="surface",
    status="converged",
    message="",
    points=234,
    rms_residual=0.0041,
    largest_miss=RunMiss(
        run_id="row 7", parameters=1e8, tokens=1e10, budget_flops=6e18, measured=2.9, fitted=2.913
    ),
    **{
        name: Estimate(value=value, low=0.9 * value, high=1.1 * value)
        for name, value in zip(QUANTITIES, (1.8, 480, 2100, 0.35, 0.37, 0.514, 0.486), strict=True)
    },
)


@functools.cache
def fit_of(shape):
    """Return the fit of a shape by curves, with a surface beside each, and its runs."""
    read = run_table(runs(*SHAPES[shape]))
    result = fit_runs(
        read.table, settings=FitSettings(estimators=("parabola", "akima"), resamples=20)
    )
    return with_fits(result, surface=SURFACE), read


def with_fits(result, **update):
    """Return a result whose variants have something else fitted."""
    fits = {name: fit.model_copy(update=update) for name, fit in result.variants.items()}
    return result.model_copy(update={"variants": fits})


def printed(result, read, width=120):
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(fit_answer(result, read))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def joined(lines):
    return " ".join(" ".join(lines).split())


def test_details_show_the_surface_of_every_variant():
    file = io.StringIO()
    for one in fit_details(*fit_of("ten variants")):
        Console(file=file, width=80, highlight=False).print(one)
    assert file.getvalue().count("0.350") == 10


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_more_than_a_screen_is_printed(shape, width):
    result, read = fit_of(shape)
    doubted = replace(
        read,
        understood="loss is val_loss, parameters is params, budget_flops is budget; 234 rows used.",
        warnings=tuple(f"warning {i} of a table" for i in range(9)),
    )
    for table in (read, doubted):
        lines = printed(result, table, width)
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= width
        assert "…" not in "".join(lines)
        assert lines[-1].endswith("--details. As JSON: --json.")
        assert any(line.startswith("Minima by parabola") for line in lines)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        (
            "one variant",
            [
                "234 of 234 rows used",
                "Optimal N ~ C^a with a = parabola 0.",
                "], Akima",
                "At 1e22 FLOPs the optimum is",
                "234 runs, off by 0.0041 r.m.s. and by 0.013 at most): E 1.80 [1.62, 1.98]",
                "Estimators differ on a minimum",
                "Minima by parabola",
            ],
        ),
        ("one budget", ["L = E + A/N^alpha + B/D^beta, N ~ C^a", "b 0.486 [0.437, 0.535]."]),
        (
            "no budget in common",
            [
                "No two variants can be compared at one budget or on their surfaces.",
                "cannot be compared with dense (moe has no run there).",
            ],
        ),
        (
            "all in common",
            [
                "mod is ",
                "moe is better than dense at 2 of 4 budgets",
                "Holm's correction for 8 comparisons.",
                "Minima by",
            ],
        ),
        ("ten variants", ["At 6e17 FLOPs"] * 6 + ["And 3 more: --details."]),
        ("many refused", ["No minimum by the parabola at 10 of 28 budgets: fewer than 3 sizes."]),
    ],
)
def test_the_answer_comes_before_what_it_rests_on(shape, told):
    text, at = joined(printed(*fit_of(shape))), -1
    for part in told:
        at = text.find(part, at + 1)
        assert at >= 0, (part, text)
    assert text.count("b 0.486") == (shape == "one budget")
    assert told[0] not in text[at + 1 :]


def test_a_row_tells_whose_minimum_it_is_where_estimators_are_mixed():
    result, read = fit_of("one budget")
    (fit,) = result.variants.values()
    parabola, akima = fit.minima
    other = akima.model_copy(update={"budget_flops": 1e19})
    lines = printed(with_fits(result, minima=(parabola, other)), read)
    assert any(line.split() == ["budget", "parameters", "loss", "by", "spread"] for line in lines)
    assert "Akima" in next(line for line in lines if line.strip().startswith("1e19"))


def test_every_variant_keeps_its_largest_budget():
    curves = fitted_curves(fit_of("no budget in common")[0])
    assert len(curves) == 28
    for most in (2, 3, 7, 12, 27):
        kept = shown_curves(curves, most)
        assert len(kept) <= most
        largest = {one.variant: one.budget_flops for one in curves}
        last = {one.variant: one.budget_flops for one in kept}
        assert last == {name: largest[name] for name in last}
        assert len(last) == min(most, 3)
    assert shown_curves(curves, 28) == curves


def test_refused_budgets_are_told_by_what_would_help():
    result, read = fit_of("many refused")
    (fit,) = result.variants.values()
    minima = tuple(
        one.model_copy(update={"status": "edge", "side": "larger", "loss": None})
        if one.budget_flops > 9e21 and one.estimator == "parabola"
        else one
        for one in fit.minima
    )
    edge = with_fits(result, minima=minima)
    assert (
        "fewer than 3 sizes (9 of them); larger sizes than those measured would bracket it "
        "(1e22 FLOPs)." in joined(printed(edge, read))
    )


def test_a_missing_surface_is_told_once_for_all_that_miss_it():
    result, read = fit_of("all in common")
    refused = SURFACE.model_copy(update={"status": "at_bound", "message": "E is zero"})
    text = joined(printed(with_fits(result, surface=refused), read))
    assert text.count("E is zero") == 1
    assert "No surface of dense; moe; mod: E is zero." in text


def test_warnings_come_before_the_answer_and_are_counted():
    result, read = fit_of("one variant")
    doubted = replace(
        read,
        understood="loss is val_loss.",
        warnings=tuple(f"doubt {i}" for i in range(5)),
        left_out=(LeftOutRows("no loss", 3, 7), LeftOutRows("no parameters", 2, 1)),
    )
    lines = printed(result, doubted)
    assert lines[0] == "loss is val_loss."
    assert lines[1:4] == [f"Warning: doubt {i}." for i in range(3)]
    assert "And 2 more: --details." in lines
    assert "doubt 3" not in joined(lines)
    told = "Left out: 5 rows (row 7: no loss; 1 more reasons)."
    assert told not in joined(lines)
    assert told in joined(printed(result, replace(doubted, understood="")))
