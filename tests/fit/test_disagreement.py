"""The systematic error bar: none where estimators agree, and the bias where they do not."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import FitSettings, fit_runs
from isoflop.fit.curves.minima import minima, minimum_disagreements
from isoflop.fit.surfaces.goodness import surface_disagreement
from isoflop.fit.surfaces.surface import Surface

MakeRuns = Callable[..., pd.DataFrame]
ONE = Surface(E=1.7, A=400, B=1500, alpha=0.3, beta=0.5)


def test_estimators_of_a_minimum_are_held_against_each_other(runs: MakeRuns) -> None:
    table = runs({"Baseline": {"loss": 1.25}}, seed_shifts=())
    # A valley in log loss through few points is not the parabola that the losses follow.
    found = minima(table, ("parabola", "akima"))
    (apart,) = minimum_disagreements(found)
    one, other = (curve.minimum for curve in found)
    assert apart.estimators == ("parabola", "akima")
    assert apart.loss == abs(one.loss - other.loss)
    sizes = sorted([one.parameters, other.parameters])
    assert apart.parameter_ratio == pytest.approx(sizes[1] / sizes[0])


def test_a_refused_estimator_is_not_compared(runs: MakeRuns) -> None:
    table = runs({"Baseline": {"loss": 1.25}}, seed_shifts=()).iloc[1:5]
    found = minima(table, ("parabola", "akima"))
    assert [one.minimum.status for one in found] == ["converged", "too_few"]
    assert minimum_disagreements(found) == ()


def test_surfaces_are_as_far_apart_as_their_extremes() -> None:
    others = [ONE.model_copy(update={"alpha": 0.5}), ONE.model_copy(update={"E": 1.5})]
    apart = surface_disagreement(dict(zip("xyz", (ONE, *others), strict=True)))
    assert apart.fits == ("x", "y", "z")
    assert apart.ranges["E"] == (1.5, 1.7)
    assert apart.ranges["alpha"] == (0.3, 0.5)
    assert apart.ranges["beta"] == (0.5, 0.5)
    assert apart.ranges["a"] == pytest.approx((0.5, 0.625))
    assert surface_disagreement({"x": ONE}) is None


def test_a_fit_says_how_far_its_estimators_are_apart(runs: MakeRuns) -> None:
    tables = []
    for budget in (1e12, 1e13, 1e14):
        made = runs({"Baseline": {"loss": 1.2}}, budget=budget, seed_shifts=())
        # The optimum of ONE, where alpha A / N^alpha = beta B / D^beta with N D = C / 6.
        best = (0.3 * 400 / (0.5 * 1500)) ** (1 / 0.8) * (budget / 6) ** (0.5 / 0.8)
        made["parameters"] = best * 1.6 ** np.arange(-3, 4)
        made["tokens"] = budget / 6 / made["parameters"]
        made["loss"] = ONE.loss(made["parameters"], made["tokens"])
        tables.append(made)
    fit = fit_runs(pd.concat(tables), settings=FitSettings(resamples=20)).variants["Baseline"]
    assert [one.budget_flops for one in fit.minimum_disagreements] == [1e12, 1e13, 1e14]
    apart = fit.surface_disagreement
    assert apart.fits[:2] == ("Huber surface", "least-squares surface")
    assert {"delta 0.0001", "delta 0.01"} <= set(apart.fits)
    # Without noise all fits are the law itself.
    assert apart.ranges["alpha"] == pytest.approx((0.3, 0.3), rel=1e-5)
