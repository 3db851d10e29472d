"""What the tables of `tests/cases` give: right numbers, and no wrong one without a word."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest

from isoflop.fit import FitSettings, fit_runs, run_table
from isoflop.fit.curves.minima import minima
from isoflop.fit.curves.moving import at_budgets
from isoflop.fit.minima.draws import run_noise
from isoflop.fit.surfaces.surface import FlopsLaw, Surface, compute_exponents, surface_optima
from isoflop.fit.tables.frame import curve_rows

CASES = Path(__file__).parents[1] / "cases"
SIX_ND = FlopsLaw(slope=1.0, height=math.log(6))
SURFACES = ("surface", "variable_projection")
PUBLISHED = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
"""Behind jittered-budgets.csv, without noise."""


def runs(name: str) -> pd.DataFrame:
    table = run_table(CASES / name).table
    return table.assign(training_flops=6 * table["parameters"] * table["tokens"])


def optimum(law: Surface, budget: float) -> tuple[float, float]:
    log_n, loss = surface_optima([law.row], budget, SIX_ND)
    return math.exp(log_n[0]), float(loss[0])


@pytest.fixture(scope="module")
def jittered():
    return fit_runs(runs("jittered-budgets.csv"), settings=FitSettings(resamples=100)).variants[
        "all runs"
    ]


def test_near_duplicates_are_one_size_whose_runs_tell_the_noise() -> None:
    table = runs("near-duplicate-sizes.csv")
    fit = fit_runs(table, settings=FitSettings(resamples=100)).variants["all runs"]
    for one in fit.minima:
        losses = curve_rows(table, "all runs", one.budget_flops)["loss"]
        assert one.status == "converged"
        # The curves are flat to 0.06, and their lowest runs lie 0.02 below the next.
        assert losses.min() - 0.02 < one.loss < losses.min() + 0.035, one
        assert one.interval.low <= one.loss <= one.interval.high
        # Student's 4.3 times the spread of a run, to either side, is 0.10.
        assert 0.002 < one.interval.high - one.interval.low < 0.15, one
    # Pairs differ by 0.020 and 0.012: the pooled spread of a run is half the root of their squares.
    noise = run_noise(curve_rows(table, "all runs", fit.minima[0].budget_flops))
    assert (noise.source, noise.run_freedom) == ("seeds", 2)
    assert noise.run_spread == pytest.approx(math.hypot(0.020, 0.012) / 2, rel=1e-3)


def test_surfaces_of_jittered_budgets_have_the_optima_of_their_law(jittered) -> None:
    true_a = float(compute_exponents(PUBLISHED.alpha, PUBLISHED.beta)[0])
    for one in jittered.minima:
        size, loss = optimum(PUBLISHED, one.budget_flops)
        if one.estimator in SURFACES:
            assert one.parameters == pytest.approx(size, rel=1e-3)
            assert one.loss == pytest.approx(loss, abs=1e-5)
            assert one.tokens == pytest.approx(one.budget_flops / 6 / size, rel=1e-3)
    for law, surface in zip(
        jittered.laws[2:], (jittered.surface, jittered.variable_projection), strict=True
    ):
        # One exponent of one fit has one value.
        assert law.a == surface.a
        assert law.a.value == pytest.approx(true_a, abs=1e-4)


def test_curves_of_jittered_budgets_are_of_one_budget_and_say_how_far_off_they_are(
    jittered,
) -> None:
    for one in jittered.minima:
        size, loss = optimum(PUBLISHED, one.budget_flops)
        if one.estimator in ("parabola", "akima"):
            # Not moved they miss by 1.5 times in size.
            assert 0.9 < one.parameters / size < 1.1, one
            assert one.interval.low <= loss <= one.interval.high
            assert one.interval.parameters_low <= size <= one.interval.parameters_high
            assert one.interval.systematic > 0
    true_a = float(compute_exponents(PUBLISHED.alpha, PUBLISHED.beta)[0])
    for law in jittered.laws[:2]:
        assert law.a.low <= true_a <= law.a.high
        assert law.a.high - law.a.low < 0.1
    assert any("moved along the surface" in note for note in jittered.notes)


def test_runs_of_one_budget_that_scatter_are_refused_where_no_surface_moves_them() -> None:
    table = runs("jittered-budgets.csv")
    one_budget = table[table["budget_flops"] == table["budget_flops"].min()]
    fit = fit_runs(one_budget, settings=FitSettings(resamples=20)).variants["all runs"]
    refused = {one.estimator: one for one in fit.minima}
    for estimator in ("parabola", "akima"):
        assert refused[estimator].status == "scattered"
        assert "no surface tells" in refused[estimator].message
    assert any("no surface tells" in note for note in fit.notes)
    close = one_budget.assign(training_flops=one_budget["budget_flops"] * 1.005)
    found = minima(close, ("parabola", "akima"))
    assert {one.status for one in found} == {"converged"}


def test_moved_runs_lie_on_the_surface_at_their_budget() -> None:
    table = runs("jittered-budgets.csv")
    moved = at_budgets(table, {"all runs": PUBLISHED})
    n, d = moved["parameters"], moved["tokens"]
    assert (6 * n * d).to_numpy() == pytest.approx(moved["budget_flops"].to_numpy(), rel=1e-9)
    assert moved["loss"].to_numpy() == pytest.approx(PUBLISHED.loss(n, d), abs=1e-4)
    assert at_budgets(moved, {"all runs": PUBLISHED}) is moved
    assert at_budgets(table, {"all runs": None}) is table


def test_the_best_rates_of_a_sweep_have_the_true_minima() -> None:
    best = run_table(CASES / "learning-rate-sweep.csv", best_of=["peak_lr"]).table
    fit = fit_runs(best, settings=FitSettings(resamples=50)).variants["all runs"]
    for estimator in ("parabola", "akima", "surface", "variable_projection"):
        losses = [one.loss for one in fit.minima if one.estimator == estimator]
        assert losses == pytest.approx([2.93, 2.65, 2.49, 2.30], abs=0.012), estimator


def test_a_surface_through_two_conditions_is_no_surface_without_a_word() -> None:
    table = runs("two-conditions-unnamed.csv")
    fit = fit_runs(table, settings=FitSettings(estimators=SURFACES, resamples=50)).variants[
        "all runs"
    ]
    measured = set(table["loss"].tolist())
    for surface in (fit.surface, fit.variable_projection):
        # Half the runs have 1.8 times the loss of the others.
        assert surface.rms_residual > 0.5
        assert "misses the runs by" in surface.warning
        miss = surface.largest_miss
        assert abs(math.log(miss.fitted / miss.measured)) > 0.25
        assert miss.measured in measured
