"""Variants compared on their surfaces."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from known_surfaces import TRUE as BASE
from known_surfaces import crossed, table_of
from scipy.optimize import brentq, minimize_scalar

from isoflop.fit import FitSettings, compare_surfaces, fit_runs, run_table, surface_sentence
from isoflop.fit.compare.surfaces import SurfaceComparison, SurfaceGap
from isoflop.fit.intervals import holm
from isoflop.fit.surfaces.sample import Samples, fit_surfaces
from isoflop.fit.surfaces.surface import Surface

CASES = Path(__file__).parents[1] / "cases"
BETTER = Surface(E=1.68, A=410.0, B=1200.0, alpha=0.35, beta=0.36)
FEW = FitSettings(resamples=100)


def runs(surfaces: dict[str, Surface], noise: float = 0.0, seed: int = 0) -> pd.DataFrame:
    """Return 6 sizes at 5 numbers of tokens for each variant."""
    n, d, _ = crossed(shape=(6, 5))
    # No budget coincides.
    parts = [
        (n * (1 + 0.07 * index), d, surface.loss(n * (1 + 0.07 * index), d))
        for index, surface in enumerate(surfaces.values())
    ]
    columns = np.concatenate(parts, axis=1)
    columns[2] *= np.exp(noise * np.random.default_rng(seed).standard_normal(columns.shape[1]))
    return table_of(tuple(columns), variant=np.repeat(list(surfaces), len(n)))


def compared(
    table: pd.DataFrame, at: tuple[float, float] | None = None, samples: Samples | None = None
) -> SurfaceComparison:
    (found,) = compare_surfaces(table, "base", settings=FEW, at=at, samples=samples)
    return found


def loss_of(surface: Surface, gap: SurfaceGap, times: float) -> float:
    """Return the loss at so many times a gap's compute: the lowest, by search, or as stated."""
    if gap.place == "stated":
        return float(surface.loss(*np.sqrt(times) * np.array([gap.parameters, gap.tokens])))
    flops = gap.training_flops * times
    found = minimize_scalar(
        lambda x: float(surface.loss(np.exp(x), flops / 6 / np.exp(x))),
        bounds=np.log([1e5, 1e13]),
        options={"xatol": 1e-8},
    )
    return float(found.fun)


def test_gaps_and_multipliers_of_exact_laws_are_theirs() -> None:
    table = runs({"base": BASE, "new": BETTER})
    found = compared(table, (3e8, 2e10))
    assert (found.variant, found.baseline, found.reason) == ("new", "base", None)
    assert found.low_flops == pytest.approx(6 * 2e7 * 1.07 * 1e9)
    assert found.high_flops == pytest.approx(6 * 2e9 * 5e10)
    assert len(found.gaps) == 2 * (1 + 3)
    for gap in found.gaps:

        def apart(x: float, gap: SurfaceGap = gap) -> float:
            return loss_of(BETTER, gap, np.exp(x)) - loss_of(BASE, gap, 1)

        assert gap.difference.value == pytest.approx(apart(0), rel=1e-4)
        assert gap.multiplier.value == pytest.approx(np.exp(brentq(apart, -5, 5)), rel=1e-3)
        assert gap.extrapolation == pytest.approx(1.0)
        assert gap.outcome == "better"


def test_the_case_that_shares_no_budget_is_answered_in_one_line() -> None:
    rows = pd.read_csv(CASES / "token-multiplier-grid.csv")
    table = run_table(rows, columns={"variant": "dataset"}).table
    for equal in (False, True):
        result = fit_runs(table, settings=FitSettings(resamples=100, equal_exponents=equal))
        (found,) = result.surface_comparisons
        assert (found.baseline, found.variant) == ("web", "filtered")
        for gap in found.gaps:
            assert gap.outcome == "better"
            # The filtered law's irreducible loss is 0.1 lower, all else the same.
            assert gap.difference.low < -0.1 < gap.difference.high
            assert gap.multiplier.high < 1
        told = surface_sentence(found, "nats")
        assert "filtered is better than web: a loss difference of -0." in told
        assert "times the compute of web" in told
        assert "least-squares surface" in told
        assert "\n" not in told


def test_a_difference_is_seldom_found_where_there_is_none() -> None:
    wrong = 0
    for seed in range(4):
        table = runs({"base": BASE, "same": BASE}, 0.01, seed=seed)
        by_huber = fit_surfaces(table, ("base", "same"), FEW, ["surface"])
        found = compared(table, samples=by_huber)
        assert len(found.gaps) == 3
        wrong += any(gap.outcome != "unresolved" for gap in found.gaps)
    # At 5% each, three or more of four would be a chance of 1 in 2,000.
    assert wrong <= 2


def test_errors_of_both_add_up() -> None:
    """The same signs in both variants' copies would cancel in the difference."""
    table = runs({"base": BASE, "same": BASE}, 0.01, seed=3)
    # The same noise in both: correlated copies would differ by nothing.
    base = table[table["variant"] == "base"]
    table = pd.concat([base, base.assign(variant="same")])
    found = compared(table)
    for gap in found.gaps:
        assert gap.difference.value == 0
        assert gap.difference.high - gap.difference.low > 1e-3
        assert gap.multiplier.low < 1 < gap.multiplier.high


def test_far_beyond_the_runs_nothing_is_called_better_and_a_loss_may_never_be_reached() -> None:
    table = runs({"base": BASE, "new": BETTER}, 0.001)
    found = compared(table, (7e10, 4e12))
    stated = found.headline("stated")
    assert stated.extrapolation == pytest.approx(35 * 80, rel=0.01)
    assert stated.p_adjusted < 0.05
    assert stated.outcome == "unresolved"
    assert "2,800 times beyond the runs" in surface_sentence(found)
    assert found.headline().outcome == "better"
    found = compared(runs({"base": BASE, "worse": BASE.model_copy(update={"E": 2.2})}, 0.001))
    assert (found.gaps[2].outcome, found.gaps[2].multiplier) == ("worse", None)
    assert found.gaps[0].multiplier.value > 1
    with pytest.raises(ValueError, match=r"baseline is 'other'; expected one of \['base', 'new'\]"):
        compare_surfaces(table, "other", settings=FEW)


def test_runs_that_do_not_overlap_are_compared_half_way_and_it_is_said() -> None:
    table = runs({"base": BASE, "new": BETTER}, 0.001)
    n, d, _ = crossed(shape=(6, 5))
    own = table["variant"] == "new"
    far = table_of((2e4 * n, d, BETTER.loss(2e4 * n, d)), variant="new")
    found = compared(pd.concat([table[~own], far]))
    assert found.low_flops is None
    assert {gap.place for gap in found.gaps} == {"optimum"}
    assert len({gap.training_flops for gap in found.gaps}) == 1
    assert all(gap.extrapolation > 1 for gap in found.gaps)
    assert "do not overlap" in surface_sentence(found)


def test_a_surface_that_did_not_converge_or_misses_its_runs_calls_nothing_better() -> None:
    table = runs({"base": BASE, "new": BETTER}, 0.002)
    kept = (table["variant"] == "base") | (table["tokens"] == table["tokens"].min())
    found = compared(table[kept])
    assert found.gaps == ()
    assert "new, Huber surface" in found.reason
    assert "cannot be compared on their surfaces" in surface_sentence(found)
    # Two recipes in one variant: half of the runs are a fifth too high.
    odd = (table["variant"] == "base") & (table.index % 2 == 0)
    table.loc[odd, "loss"] *= 1.2
    found = compared(table)
    assert "misses the runs" in found.reason
    assert {gap.outcome for gap in found.gaps} <= {"unresolved"}


def test_more_variants_need_smaller_p_values_and_few_copies_do() -> None:
    # A share of 100 copies is at least 2 / 101, which Holm would multiply by 15.
    names = {f"v{i}": BETTER for i in range(5)}
    found = compare_surfaces(runs({"base": BASE, **names}, 0.001), "base", settings=FEW)
    assert {one.headline().outcome for one in found} == {"better"}
    # Fifteen tests of a kind: five variants at three budgets.
    of_huber = [g for one in found for g in one.gaps if g.estimator == "surface"]
    assert len(of_huber) == 15
    assert [g.p_adjusted for g in of_huber] == holm([g.p for g in of_huber])
