"""How often nominal 95% intervals hold the truth, over simulated studies; the parabola's bias.

With -s the tables of docs/fits.md are printed.
"""

import math

import numpy as np
import pandas as pd
import pytest
from known_surfaces import ASYMMETRIC, FITS, SIZES, SYMMETRIC, along_budgets, optimum
from scipy import special
from simulated_differences import PAIRS, Pair, difference_coverage, watched_coverage
from simulated_studies import DESIGNS, Design, minimum_coverage, profile_coverage, surface_coverage

from isoflop.fit import FitSettings
from isoflop.fit.intervals import WithError, looked_at, looked_at_p
from isoflop.fit.laws.optima import fit_power_law
from isoflop.fit.minima.parabola import PARABOLA, WINDOW
from isoflop.fit.surfaces.bootstrap import surface_draws
from isoflop.fit.surfaces.data import SurfaceData

WATCHED = ("as usual", "seeds move variants apart", "seeds count most", "much noise")
"""Kinds of pairs that are looked at after each seed."""


def over_designs(coverage, studies: int) -> pd.DataFrame:
    """Return the coverage of every design, a row per design and estimator."""
    found = {name: coverage(design, studies) for name, design in DESIGNS.items()}
    table = pd.concat(found, names=["design"])
    print(f"\n{coverage.__name__}, {studies} studies each\n{table.round(3).to_string()}")
    return table


@pytest.mark.slow
def test_surface_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """400 studies of each design: a binomial error of 1.1%."""
    found = over_designs(surface_coverage, 400)
    assert (found["studies"] > 0.99).all()
    columns = ["E", "A", "B", "alpha", "beta", "a"]
    pooled = found[columns].groupby("estimator").mean()
    assert pooled.min(axis=None) >= 0.90, pooled
    assert pooled.max(axis=None) <= 0.97, pooled
    # Each on its own, to within two errors.
    assert found[columns].min(axis=None) >= 0.90 - 0.022, found
    assert found[columns].max(axis=None) <= 0.97 + 0.022, found


@pytest.mark.slow
def test_profile_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """40 studies of each design: a binomial error of 3.4%, of 1.5% over the five."""
    found = over_designs(profile_coverage, 40)
    pooled = found[["E", "A", "B", "alpha", "beta"]].groupby("estimator").mean()
    assert pooled.min(axis=None) >= 0.90, pooled
    assert pooled.max(axis=None) <= 0.97, pooled


@pytest.mark.slow
def test_intervals_of_minima_hold_the_truth_where_the_grid_is_centred() -> None:
    """200 studies of each design. Off centre, curves with a minimum are the lucky ones."""
    found = over_designs(minimum_coverage, 200)
    assert (found["loss"] >= 0.86).all()
    centred = found[found.index.get_level_values("design").str.contains("centred")]
    assert (centred["loss"] >= 0.90).all()
    assert (centred["size"] >= 0.90).all()


@pytest.mark.slow
def test_intervals_of_differences_hold_the_truth_as_often_as_they_say() -> None:
    """400 studies of each kind: a binomial error of 1.1%."""
    found = pd.DataFrame({name: difference_coverage(pair, 400) for name, pair in PAIRS.items()}).T
    print(f"\n{found.round(4).to_string()}")
    assert (found["held"] >= 0.93).all(), found
    # With hardly any noise the misfit of the parabola is all there is, and that is no accident.
    assert (found["held"].drop("hardly any noise") <= 0.99).all(), found


@pytest.mark.slow
def test_intervals_of_differences_hold_as_often_at_another_level() -> None:
    """1,000 studies of two seeds, where scatter has more degrees of freedom: an error of 0.2%."""
    pair = Pair(own=0.003, shared=0.006, common=False, seeds=2)
    assert difference_coverage(pair, 1000, level=0.995)["held"] >= 0.993


def test_of_two_errors_every_level_takes_the_worse() -> None:
    scatter = WithError(value=-0.02, error=0.006, degrees_of_freedom=9)
    seeds = WithError(value=-0.02, error=0.004, degrees_of_freedom=2)
    both = seeds.model_copy(update={"beside": scatter})
    wider = set()
    for level in (0.5, 0.9, 0.95, 0.99, 0.999):
        ends = [one.interval(level).ends for one in (both, seeds, scatter)]
        assert ends[0] == max(ends[1:], key=np.ptp)
        wider.add(ends[1:].index(ends[0]))
    assert wider == {0, 1}
    for value in (-0.03, 0.02, 0.08):
        one, other, found = (
            error.model_copy(update={"value": value}) for error in (seeds, scatter, both)
        )
        found = found.model_copy(update={"beside": other})
        assert found.p_below() == max(one.p_below(), other.p_below())
        assert found.p_above(0.01) == max(one.p_above(0.01), other.p_above(0.01))
        assert found.p_equivalent(0.05) == max(one.p_equivalent(0.05), other.p_equivalent(0.05))


@pytest.mark.parametrize("declared", [3, 5, 8])
def test_looking_after_each_value_needs_the_interval_that_is_meant_for_it(declared) -> None:
    """10,000 samples of up to 40 values: a binomial error of 0.2%."""
    values = np.random.default_rng(declared).standard_normal((10_000, 40))
    n = np.arange(declared, 41)
    mean = (values.cumsum(axis=1) / np.arange(1, 41))[:, declared - 1 :]
    squares = (values**2).cumsum(axis=1)[:, declared - 1 :]
    t = np.abs(mean) * np.sqrt(n * (n - 1) / (squares - n * mean**2))
    always = [looked_at(count, declared, 0.95) for count in n.tolist()]
    assert 0.95 <= (t <= always).all(axis=1).mean() <= 0.985
    assert (t <= special.stdtrit(n - 1, 0.975)).all(axis=1).mean() < 0.8
    for count, reach in zip(n.tolist(), always, strict=True):
        assert looked_at_p(reach, count, declared) == pytest.approx(0.05, rel=1e-6)


def test_tests_and_intervals_of_many_looks_agree() -> None:
    def watched(value: float) -> WithError:
        return WithError(value=value, error=1.0, degrees_of_freedom=9, looks_from=3)

    reach = looked_at(10, 3, 0.95)
    assert watched(0.5).interval().ends == (0.5 - reach, 0.5 + reach)
    assert reach > 1.5 * special.stdtrit(9, 0.975)
    assert watched(reach).p_different() == pytest.approx(0.05)
    assert watched(-reach).p_below() == pytest.approx(0.025)
    assert watched(reach).p_below() == 1
    # Equivalent is what has its whole interval within the margin.
    assert watched(0.5).p_equivalent(0.5 + reach) == pytest.approx(0.05)
    assert watched(0.5).p_equivalent(0.1) == 1


@pytest.mark.slow
def test_intervals_of_watched_differences_hold_the_truth_at_every_look() -> None:
    """200 studies of each kind, looked at after each seed up to 14: an error of 1.5%."""
    found = pd.DataFrame(
        {
            (name, declared): watched_coverage(PAIRS[name], declared, 14, 200)
            for name in WATCHED
            for declared in (3, 5)
        }
    ).T
    print(f"\n{found.round(4).to_string()}")
    assert (found["always"] >= 0.94).all(), found
    assert (found["once"] <= 0.92).all(), found


@pytest.mark.parametrize(
    ("surface", "shift", "ratio", "error"),
    [
        (SYMMETRIC, 1, 1.0, -0.0003),
        (SYMMETRIC, 3, 1.006, -0.0002),
        (ASYMMETRIC, 1 / 3, 0.980, -0.0006),
        (ASYMMETRIC, 1, 1.053, -0.0003),
        (ASYMMETRIC, 3, 0.992, 0.0003),
    ],
)
def test_the_parabola_is_biased_without_any_noise(surface, shift, ratio, error) -> None:
    # The surface is the same curve at every budget, but for the height of the valley.
    for budget in (1e20, 1e19, 1e18):
        n, _, losses = along_budgets(surface, [budget], shift * SIZES)
        found, size = PARABOLA.find(n, losses), optimum(surface, budget)
        assert found.parameters / size == pytest.approx(ratio, abs=1e-3)
    assert found.loss - surface.loss(size, 1e18 / 6 / size) == pytest.approx(error, abs=5e-5)


@pytest.mark.parametrize("surface", [SYMMETRIC, ASYMMETRIC])
@pytest.mark.parametrize(("window", "bias"), [(WINDOW, 0.0028), (math.inf, 0.0163)])
def test_a_grid_that_drifts_bends_the_parabolas_exponent(
    surface, window, bias, monkeypatch
) -> None:
    monkeypatch.setattr("isoflop.fit.minima.parabola.WINDOW", window)
    budgets, shifts = np.array([1e18, 1e19, 1e20]), (1 / 3, 1, 3)
    found = []
    for flops, shift in zip(budgets, shifts, strict=True):
        n, _, losses = along_budgets(surface, [flops], shift * SIZES)
        found.append(PARABOLA.find(n, losses).parameters)
    true = surface.beta / (surface.alpha + surface.beta)
    assert fit_power_law(budgets, found).a.value - true == pytest.approx(bias, rel=0.05)


@pytest.mark.parametrize("fit", FITS.values(), ids=list(FITS))
def test_a_thousand_draws_of_250_runs_all_converge(fit) -> None:
    study = next(Design(SYMMETRIC, 6, 1000, 6, 1, 0.005).studies(1))
    data = SurfaceData.of(*(column[:250] for column in study))
    assert np.isfinite(surface_draws(fit(data), data, FitSettings(resamples=1000))).all()
