"""Surfaces as the noise of the runs might have made them: draws behind every interval of one.

Up to `BOOTSTRAP_RUNS` runs it is the wild bootstrap (Wu 1986; for medians, which Huber's fit is
near to, Feng, He and Hu 2011): each run's residual, as large as the noise, is added to the fitted
surface with a sign drawn anew, and the copy is fitted. The grid stays the one that was trained,
and noise may differ between runs. Runs of a cluster share their signs, so that what they share
stays in them. All copies descend side by side.

For more runs it is the distribution that many runs lead to, without refits.

Axes: R draws, P runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.intervals import Floats, draws_interval
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces.data import SurfaceData, directions
from isoflop.fit.surfaces.descent import SurfaceObjective, descend
from isoflop.fit.surfaces.errors import (
    fitted_losses,
    limit_draws,
    normal_spread,
    unfitted_residuals,
)
from isoflop.fit.surfaces.surface import SurfaceFit, compute_exponents

REFITTED = 1e-10
"""Relative fall of the objective in the last step of a copy."""
BOOTSTRAP_RUNS = 2000
"""A thousand refits of more runs would take minutes, and tell what the limit does."""
EFFICIENT = 1.345
"""Huber's delta over the spread of normal noise at which it needs 5% more runs than least
squares."""
DrawsSource = Literal["residuals", "clusters", "limit"]
DRAWS_WORDS: Mapping[DrawsSource, str] = {
    "residuals": "refits with the residuals under random signs",
    "clusters": "refits with the residuals under random signs, one for each cluster",
    "limit": "the distribution that many runs lead to, without refits",
}
"""What a person reads."""
QUANTITIES = ("E", "A", "B", "alpha", "beta", "a", "b")
"""`a` and `b` are the exponents of the optimal N and D in compute, `compute_exponents`."""


def surface_draws(
    fit: SurfaceFit,
    data: SurfaceData,
    settings: FitSettings,
    *,
    clusters: ArrayLike | None = None,
    slope: float = 1.0,
) -> Floats:
    """Return surfaces that noise might have made, columns as `QUANTITIES`, shape (R, 7).

    Args:
        fit: the surface through all runs.
        data: the runs.
        settings: R, and the seed of the draws.
        clusters: label of each run; runs with one label share some noise and are drawn together.
        slope: of the law of FLOPs per token by size, which `a` and `b` hang on.

    Raises:
        ValueError: there is no surface to start from, or the columns do not fit together.
    """
    if fit.surface is None:
        raise ValueError(f"there is no surface to resample: {fit.message}")
    generator = np.random.default_rng(settings.seed)
    labels = cluster_labels(len(data), clusters)
    start = data.unknowns(fit.surface)
    # A term of zero has no log; far below the others it is as good as none.
    start[:3] = np.maximum(start[:3], math.log(1e-9 * float(data.losses.min())))
    ways = directions(equal_exponents=fit.equal_exponents)
    count = settings.resamples
    if draws_source(len(data), clustered=clusters is not None) == "limit":
        drawn = limit_draws(data, start, labels, ways, fit.delta, count, generator)
    else:
        copies = noisy_copies(data, start, labels, count, generator, ways)
        objective = SurfaceObjective(data, fit.delta, copies)
        drawn = descend(objective, start, directions=ways, exact=True, converged=REFITTED)
    alpha, beta = drawn[:, 3], drawn[:, 4]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        logs = drawn[:, 0], drawn[:, 1] + alpha * data.log_n0, drawn[:, 2] + beta * data.log_d0
        exponents = compute_exponents(alpha, beta, slope)
        return np.stack([*map(np.exp, logs), alpha, beta, *exponents], axis=1)


def draws_source(runs: int, *, clustered: bool) -> DrawsSource:
    """Return what `surface_draws` draws for so many runs."""
    if runs > BOOTSTRAP_RUNS:
        return "limit"
    return "clusters" if clustered else "residuals"


def noisy_copies(
    data: SurfaceData,
    x: Floats,
    labels: NDArray[np.intp],
    copies: int,
    generator: np.random.Generator,
    ways: Floats | None = None,
) -> Floats:
    """Return losses (copies, P): the surface at x (K,) with the residuals under random signs.

    Residuals are those about a fit that is nearly least squares but for outliers, whatever the
    estimator: Huber's with a small delta passes through some runs, whose residual of zero is no
    noise. Their spread is drawn as well, since few runs, or few clusters, do not tell it. Unknowns
    move along `ways` (K, F), each on its own if left out.
    """
    free = np.eye(5) if ways is None else ways
    own = normal_spread(np.log(data.losses / fitted_losses(data, x)[0]), free.shape[1])
    near = SurfaceObjective(data, EFFICIENT * own)
    smooth = descend(near, x, directions=free, exact=True, converged=REFITTED)[0]
    residuals = unfitted_residuals(data, smooth, free)
    clusters = int(labels.max()) + 1
    freedom = max(1, min(len(residuals) - free.shape[1], clusters - 1))
    spread = np.sqrt(freedom / generator.chisquare(freedom, (copies, 1)))
    signs = generator.choice([-1.0, 1.0], size=(copies, clusters))[:, labels]
    return np.asarray(fitted_losses(data, x)[0] * np.exp(residuals * signs * spread))


def cluster_labels(runs: int, clusters: ArrayLike | None) -> NDArray[np.intp]:
    """Return the cluster of each run, numbered from 0; without clusters each is its own."""
    if clusters is None:
        return np.arange(runs)
    labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
    if labels.shape != (runs,):
        raise ValueError(f"clusters has shape {labels.shape}; expected a label per run")
    if labels.max() == 0:
        raise ValueError("all runs are in one cluster; expected two or more to resample")
    return np.asarray(labels, dtype=np.intp)


def surface_intervals(
    fit: SurfaceFit, draws: Floats, *, level: float = LEVEL, slope: float = 1.0
) -> Mapping[str, Estimate]:
    """Return the percentile interval of each of `QUANTITIES`; `slope` as for `surface_draws`."""
    assert fit.surface is not None
    s = fit.surface
    values = (*s.row, *map(float, compute_exponents(s.alpha, s.beta, slope)))
    whole = np.isfinite(draws).all(axis=1, keepdims=True)
    columns = np.where(whole, draws, math.nan).T
    return {
        name: draws_interval(value, column, level=level)
        for name, value, column in zip(QUANTITIES, values, columns, strict=True)
    }
