"""To add an estimator is one file and one line: everything else follows from its registration."""

import numpy as np
import pandas as pd
import pytest

from isoflop.fit import ESTIMATOR_NAMES, ESTIMATORS, FitSettings, fit_runs
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.minimum import CurveEstimator
from isoflop.fit.minima.sizes import size_means
from isoflop.fit.surfaces import SURFACE_ESTIMATORS


def lowest(parameters: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest size of each copy: an estimator as short as one can be."""
    sizes, means = size_means(parameters, losses)
    return np.log(sizes)[means.argmin(axis=1)], means.min(axis=1)


@pytest.mark.parametrize("seeds", [(), (0.002, -0.001)])
def test_an_estimator_that_is_registered_is_fitted_drawn_and_shown(
    runs, monkeypatch, seeds
) -> None:
    own = CurveEstimator("lowest", "the lowest size", 3, lowest, lambda *_: "the lowest size")
    monkeypatch.setitem(CURVE_ESTIMATORS, "lowest", own)
    tables = [
        runs({"Baseline": {"loss": y}, "MoD": {"loss": y - 0.02}}, budget=c, seed_shifts=seeds)
        for c, y in ((5e12, 1.25), (2e13, 1.2))
    ]
    asked = FitSettings(estimators=("parabola", "lowest"), resamples=20)
    result = fit_runs(pd.concat(tables, ignore_index=True), asked)
    for fit in result.variants.values():
        found = [one for one in fit.minima if one.estimator == "lowest"]
        assert [one.status for one in found] == ["converged"] * 2
        assert all(one.interval.low <= one.loss <= one.interval.high for one in found)
        assert [one.estimator for one in fit.laws] == ["parabola", "lowest"]
        assert "lowest" in fit.minimum_disagreements[0].estimators
    assert result.verdicts[0].estimates["lowest"] == pytest.approx(-0.02, abs=1e-6)


def test_every_estimator_is_registered_under_its_name_and_has_words() -> None:
    for name, one in (CURVE_ESTIMATORS | SURFACE_ESTIMATORS).items():
        assert one.name == name
        assert ESTIMATOR_NAMES[name] == one.words
    assert tuple(ESTIMATOR_NAMES) == ESTIMATORS
