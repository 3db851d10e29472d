"""How well a surface goes through its runs, and when it is said not to."""

import math

import numpy as np
import pandas as pd
import pytest
from known_surfaces import TRUE, table_of

from isoflop.fit.minima.draws import RunNoise
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.surfaces.goodness import (
    Goodness,
    RunMiss,
    following,
    goodness,
    misfit,
    noise_about,
)
from isoflop.fit.surfaces.surface import SurfaceFit

MISS = RunMiss(run_id="x", parameters=1e8, tokens=1e9, budget_flops=6e17, measured=3.0, fitted=3.1)


def fits(rms: float) -> Goodness:
    return Goodness(rms=rms, log_rms=rms / 3, largest=MISS)


def noise(spread: float, freedom: int = 20, **other: object) -> RunNoise:
    return RunNoise(source="seeds", run_spread=spread, run_freedom=freedom).model_copy(update=other)


def off_the_law(n: object, d: object, off: object) -> pd.DataFrame:
    """Return runs whose losses are so far off those of the law."""
    n, d, off = np.broadcast_arrays(n, d, off)
    return table_of((n, d, TRUE.loss(n, d) + off))


def test_residuals_and_the_run_that_is_missed_by_most() -> None:
    rows = off_the_law([1e8, 1e8, 2e8], [1e9, 2e9, 1e9], [0.0, 0.03, -0.04])
    found = goodness(rows, TRUE)
    assert found.rms == pytest.approx(math.hypot(0.03, 0.04) / math.sqrt(3))
    assert found.largest.run_id == rows["run_id"].iloc[2]
    assert found.largest.measured == pytest.approx(rows["loss"].iloc[2])
    assert found.largest.fitted == pytest.approx(float(TRUE.loss(2e8, 1e9)))


def test_a_run_that_diverged_is_named() -> None:
    n, d = np.tile(1e8 * 1.6 ** np.arange(6), 2), np.repeat([2e9, 8e9], 6)
    rows = off_the_law(n, d, 0.01 * np.array([1, -1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1]))
    assert goodness(rows, TRUE).far_off == 0
    rows.loc[4, ["run_id", "loss"]] = "that one", 8.0
    # A run below the surface has not diverged.
    rows.loc[7, "loss"] = 1.7
    found = goodness(rows, TRUE)
    assert found.far_off == 1
    assert "runs far above it: 1 (that one: a loss of 8 where it has" in misfit(found, 12)


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
    told = misfit(found, 60, noises)
    assert told is None if expected is None else expected in told
    minima = [Minimum(estimator="surface", status=one, message="") for one in ("outside", "edge")]
    assert "at 1 of 2 budgets" in misfit(found, 60, noises, minima)


@pytest.mark.parametrize(
    ("statuses", "spread"),
    [
        (("at_bound", "converged"), 0.01),
        (("at_bound", "not_converged"), 0.02),
        (("ill_conditioned", "not_converged"), None),
    ],
)
def test_a_surface_at_a_bound_tells_the_noise_where_none_converged(statuses, spread) -> None:
    far = {"at_bound": 0.02, "converged": 0.01}
    fits = [
        SurfaceFit(
            estimator="surface",
            status=status,
            message="",
            surface=TRUE.model_copy(update={"E": TRUE.E + far.get(status, 0.5)}),
            points=10,
        )
        for status in statuses
    ]
    found = noise_about(off_the_law(1e8, np.geomspace(1e9, 1e10, 10), 0.0), following(fits))
    # Five degrees of freedom of ten go into the surface.
    wanted = None if spread is None else pytest.approx(spread * math.sqrt(2))
    assert (found and found.run_spread) == wanted
