"""How well a surface goes through its runs, and when it is said not to."""

import math

import numpy as np
import pandas as pd
import pytest

from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.minima.noise import RunNoise
from isoflop.fit.surfaces.goodness import (
    Goodness,
    RunMiss,
    following,
    goodness,
    misfit,
    noise_about,
)
from isoflop.fit.surfaces.surface import Surface, SurfaceFit

LAW = Surface(E=1.5, A=400.0, B=1500.0, alpha=0.34, beta=0.37)
MISS = RunMiss(run_id="x", parameters=1e8, tokens=1e9, budget_flops=6e17, measured=3.0, fitted=3.1)


def fits(rms: float) -> Goodness:
    return Goodness(rms=rms, log_rms=rms / 3, largest=MISS)


def noise(spread: float, freedom: int = 20, **other: object) -> RunNoise:
    return RunNoise(source="seeds", run_spread=spread, run_freedom=freedom).model_copy(update=other)


def test_residuals_and_the_run_that_is_missed_by_most() -> None:
    n, d = [1e8, 1e8, 2e8], [1e9, 2e9, 1e9]
    losses = LAW.loss(n, d) + np.array([0.0, 0.03, -0.04])
    rows = pd.DataFrame(
        {
            "run_id": ["a", "b", "c"],
            "parameters": n,
            "tokens": d,
            "budget_flops": 6e17,
            "loss": losses,
        }
    )
    found = goodness(rows, LAW)
    assert found.rms == pytest.approx(math.hypot(0.03, 0.04) / math.sqrt(3))
    assert (found.largest.run_id, found.largest.measured) == ("c", pytest.approx(losses[2]))
    assert found.largest.fitted == pytest.approx(float(LAW.loss(2e8, 1e9)))


def test_a_run_that_diverged_is_named() -> None:
    n = np.tile(1e8 * 1.6 ** np.arange(6), 2)
    d = np.repeat([2e9, 8e9], 6)
    off = 0.01 * np.array([1, -1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1])
    rows = pd.DataFrame(
        {"run_id": [f"row {i}" for i in range(12)], "parameters": n, "tokens": d}
    ).assign(budget_flops=6 * n * d, loss=LAW.loss(n, d) + off)
    assert goodness(rows, LAW).far_off == 0
    rows.loc[4, "loss"] = 8.0
    # A run below the surface has not diverged.
    rows.loc[7, "loss"] = 1.7
    found = goodness(rows, LAW)
    assert found.far_off == 1
    assert "1 run lies far above it (row 4: a loss of 8 where it has" in misfit(found, 12, [], [])


@pytest.mark.parametrize(
    ("found", "noises", "expected"),
    [
        (fits(0.02), [noise(0.01)], None),
        (fits(0.04), [noise(0.01)], "times as much as repeated runs differ by"),
        # Five degrees of freedom go into the surface, and two repeats tell little of the noise.
        (fits(0.04), [noise(0.01, 2)], None),
        (fits(0.04), [noise(0.01, 20, source="scatter")], None),
        # What a seed shares is noise too.
        (fits(0.04), [noise(0.01, 20, seed_spread=0.02)], None),
        (fits(0.002), [noise(1e-6)], None),
        (fits(0.2), [], "misses the runs by 6.7% of the loss"),
    ],
)
def test_a_misfit_is_told_where_it_is_no_noise(found, noises, expected) -> None:
    told = misfit(found, 60, noises, [])
    assert told is None if expected is None else expected in told


def test_minima_outside_the_losses_measured_are_told() -> None:
    minima = [
        Minimum(estimator="surface", status=status, message="") for status in ("outside", "edge")
    ]
    assert "at 1 of 2 budgets" in misfit(fits(0.001), 60, [], minima)


@pytest.mark.parametrize(
    ("statuses", "spread"),
    [
        (("at_bound", "converged"), 0.01),
        (("at_bound", "not_converged"), 0.02),
        (("ill_conditioned", "not_converged"), None),
    ],
)
def test_a_surface_at_a_bound_tells_the_noise_where_none_converged(statuses, spread) -> None:
    n, d = np.full(10, 1e8), np.geomspace(1e9, 1e10, 10)
    rows = pd.DataFrame({"run_id": "a", "variant": "v", "state": "finished", "parameters": n})
    rows = rows.assign(tokens=d, budget_flops=6 * n * d, loss=LAW.loss(n, d), on_ladder=True)
    far = {"at_bound": 0.02, "converged": 0.01}
    fits = [
        SurfaceFit(
            estimator="surface",
            status=status,
            message="",
            surface=LAW.model_copy(update={"E": LAW.E + far.get(status, 0.5)}),
            points=10,
        )
        for status in statuses
    ]
    found = noise_about(rows, following(fits))
    if spread is None:
        assert found is None
    else:
        # Five degrees of freedom of ten go into the surface.
        assert found.run_spread == pytest.approx(spread * math.sqrt(2))
