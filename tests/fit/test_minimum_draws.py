"""Noise of runs, its two parts, and the intervals of minima that follow from it."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings
from isoflop.fit.minima.akima import AKIMA
from isoflop.fit.minima.draws import CurveDraws, noisy_losses, run_noise
from isoflop.fit.minima.parabola import PARABOLA

MakeRuns = Callable[..., pd.DataFrame]
BUDGET = 5e12
SIZES = 2e5 * 1.6 ** np.arange(-3, 4)


def replicated(runs: MakeRuns, seeds: int) -> pd.DataFrame:
    """Return a curve whose sizes near the minimum have several seeds, all but without noise."""
    return runs({"Baseline": {"loss": 1.2}}, seed_shifts=tuple(1e-12 * s for s in range(1, seeds)))


def noisy(
    table: pd.DataFrame, own: float, shared: float, generator: np.random.Generator
) -> pd.DataFrame:
    """Return the curve with noise of each run's own and of each seed."""
    of_seed = shared * generator.standard_normal(table["seed"].max() + 1)
    off = own * generator.standard_normal(len(table)) + of_seed[table["seed"]]
    return table.assign(loss=table["loss"] + off)


def test_parts_of_the_noise_are_told_apart(runs: MakeRuns) -> None:
    rng, curve = np.random.default_rng(0), replicated(runs, 8)
    found = [run_noise(noisy(curve, 0.002, 0.006, rng)) for _ in range(60)]
    assert {one.source for one in found} == {"seeds"}
    own = np.mean([one.run_spread**2 for one in found]) ** 0.5
    shared = np.mean([one.seed_spread**2 for one in found]) ** 0.5
    assert own == pytest.approx(0.002, rel=0.15)
    assert shared == pytest.approx(0.006, rel=0.25)


def test_without_replicates_the_scatter_about_the_parabola_is_the_noise(runs: MakeRuns) -> None:
    table = runs({"Baseline": {"loss": 1.2}}, seed_shifts=())
    table["loss"] += 0.003 * np.random.default_rng(3).standard_normal(len(table))
    noise = run_noise(table)
    assert noise.source == "scatter"
    assert 0.001 < noise.run_spread < 0.009
    assert run_noise(table.iloc[1:6]) is None, "two degrees of freedom tell nothing"


@pytest.mark.parametrize(("own", "shared"), [(0.004, 0.0), (0.002, 0.004)])
def test_intervals_of_the_minimum_hold_the_truth(runs: MakeRuns, own: float, shared: float) -> None:
    """Coverage over 80 studies of four seeds; nominal 95%, binomial error 2.5%."""
    rng, curve = np.random.default_rng(7), replicated(runs, 4)
    held = 0
    widths = []
    for study in range(80):
        table = noisy(curve, own, shared, rng)
        draws = CurveDraws(table, FitSettings(resamples=150, seed=study))
        _, losses = draws.minima("Baseline", BUDGET)
        low, high = np.nanquantile(losses, [0.025, 0.975])
        held += low <= 1.2 <= high
        widths.append(high - low)
    assert held / 80 >= 0.88
    # A wide interval holds anything. The minimum rests on about four runs of four seeds: four
    # standard errors, and half as much again for what is not known of the noise.
    assert np.median(widths) < 6 * np.hypot(own, shared) / 2


@pytest.mark.parametrize("estimator", [PARABOLA, AKIMA], ids=lambda one: one.name)
def test_minima_of_copies_are_those_of_each_copy_alone(runs: MakeRuns, estimator) -> None:
    table = noisy(replicated(runs, 3), 0.02, 0.01, np.random.default_rng(5))
    rows, noise = table, run_noise(table)
    # More copies than runs and sizes, so that axes cannot be mixed up.
    copies = noisy_losses(rows, noise, 150, np.random.default_rng(3))
    n = rows["parameters"].to_numpy()
    drawn = estimator.find_in_copies(n, copies)
    refused = 0
    for losses, log_size, loss in zip(copies, *drawn, strict=True):
        alone = estimator.find(rows["parameters"], losses)
        if alone.loss is None:
            refused += 1
            assert np.isnan(loss)
            if alone.status == "edge":
                # At the end of the sizes, or of the window that the parabola is fitted to.
                near = rows["parameters"].between(SIZES[1], SIZES[-2])
                end = rows["parameters"][~near] if estimator is AKIMA else rows["parameters"]
                assert np.isclose(np.exp(log_size), end).any(), alone
            else:
                assert np.isnan(log_size), alone
            continue
        assert np.exp(log_size) == pytest.approx(alone.parameters, rel=1e-6)
        assert loss == pytest.approx(alone.loss, rel=1e-9)
    assert 0 < refused < 75


def test_curves_are_drawn_once_each_and_not_alike(runs: MakeRuns) -> None:
    tables = [
        runs({"Baseline": {"loss": 1.2}, "MoD": {"loss": 1.2}}, budget=b) for b in (1e12, 5e12)
    ]
    draws = CurveDraws(pd.concat(tables), FitSettings(resamples=40, seed=1))
    first = draws.minima("Baseline", 1e12)
    assert first is draws.minima("Baseline", 1e12)
    # The curves are the same but for the noise, which is each curve's own.
    for variant, budget in (("Baseline", 5e12), ("MoD", 1e12)):
        other = draws.minima(variant, budget)
        assert abs(np.corrcoef(first[1], other[1])[0, 1]) < 0.6
    assert (
        CurveDraws(tables[0], FitSettings(resamples=40, seed=2)).minima("Baseline", 1e12)[1][0]
        != first[1][0]
    )
