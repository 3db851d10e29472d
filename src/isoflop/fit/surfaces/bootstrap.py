"""Surfaces as the noise of the runs might have made them: draws behind every interval of one.

Up to `BOOTSTRAP_RUNS` runs it is the wild bootstrap (Wu 1986; for medians, which Huber's fit is
near to, Feng, He and Hu 2011): each run's residual, as large as the noise, is added to the fitted
surface with a sign drawn anew, and the copy is fitted. The grid stays the one that was trained,
and noise may differ between runs. Runs of a cluster share their signs, so that what they share
stays in them. All copies descend side by side.

For more runs it is the distribution that many runs lead to, without refits.

Axes: R draws, P runs, K = 5 unknowns, F directions that these may move in, as `data` has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.intervals import Floats, draws_interval
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces.data import DIRECTIONS, SurfaceData
from isoflop.fit.surfaces.descent import SurfaceObjective, descend
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

    Runs with one label of `clusters` (P,) share some noise and are drawn together; `slope` is that
    of the law of FLOPs per token by size, which `a` and `b` hang on.

    Raises:
        ValueError: all runs are in one cluster.
    """
    assert fit.surface is not None
    generator = np.random.default_rng(settings.seed)
    labels = np.arange(len(data))
    if clusters is not None:
        labels = np.unique(np.asarray(clusters), return_inverse=True)[1]
        if labels.max() == 0:
            raise ValueError("all runs are in one cluster; expected two or more to resample")
    start = data.unknowns(fit.surface)
    # A term of zero has no log; far below the others it is as good as none.
    start[:3] = np.maximum(start[:3], math.log(1e-9 * float(data.losses.min())))
    ways = DIRECTIONS[fit.equal_exponents]
    if draws_source(len(data), clustered=clusters is not None) == "limit":
        drawn = limit_draws(data, start, labels, ways, fit.delta, settings.resamples, generator)
    else:
        copies = noisy_copies(data, start, labels, settings.resamples, generator, ways)
        objective = SurfaceObjective(data, fit.delta, copies)
        drawn = descend(objective, start, directions=ways, exact=True, converged=REFITTED)
    rows = data.coefficients(drawn)
    exponents = compute_exponents(rows[:, 3], rows[:, 4], slope)
    return np.column_stack([rows, *exponents])


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
    ways: Floats,
) -> Floats:
    """Return losses (copies, P): the surface at x (K,) with the residuals under random signs.

    Residuals are those about a fit that is nearly least squares but for outliers, whatever the
    estimator: Huber's with a small delta passes through some runs, whose residual of zero is no
    noise. Their spread is drawn as well, since few runs, or few clusters, do not tell it. Unknowns
    move along `ways` (K, F); `labels` (P,) are of the clusters, from 0.
    """
    near = SurfaceObjective(data, EFFICIENT * normal_spread(data.log_residuals(x), ways.shape[1]))
    smooth = descend(near, x, directions=ways, exact=True, converged=REFITTED)[0]
    residuals = unfitted_residuals(data, smooth, ways)
    clusters = int(labels.max()) + 1
    freedom = max(1, min(len(data) - ways.shape[1], clusters - 1))
    spread = np.sqrt(freedom / generator.chisquare(freedom, (copies, 1)))
    signs = generator.choice([-1.0, 1.0], size=(copies, clusters))[:, labels]
    return np.asarray(data.fitted(x)[0] * np.exp(residuals * signs * spread))


def limit_draws(
    data: SurfaceData,
    x: Floats,
    labels: NDArray[np.intp],
    ways: Floats,
    delta: float | None,
    draws: int,
    generator: np.random.Generator,
) -> Floats:
    """Return unknowns (draws, K) from the distribution that many runs lead to.

    It is Student's, about x (K,), with the sandwich covariance of an M-estimator (Huber 1967), in
    which the runs of a cluster, by its label (P,) from 0, are summed before they are squared (Liang
    and Zeger 1986). The unknowns move along `ways` (K, F); `delta` is that of the Huber loss on log
    loss, None for least squares on the loss.
    """
    fitted, jacobian = data.fitted(x)
    if delta is None:
        jacobian = jacobian * fitted[:, None]
        slope, bend = fitted - data.losses, np.ones_like(fitted)
    else:
        # How likely each run is to lie where the Huber loss bends: noise may differ between runs.
        residual = np.log(fitted / data.losses)
        slope, bend = np.clip(residual / delta, -1, 1), within(residual, delta) / delta
    jacobian = jacobian @ ways
    # Columns differ by orders of magnitude, and one of a term that is zero has no inverse.
    scale = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    jacobian = jacobian / scale
    clusters = int(labels.max()) + 1
    scores = np.stack([np.bincount(labels, slope * one, clusters) for one in jacobian.T], axis=1)
    bread = np.linalg.pinv(jacobian.T * bend @ jacobian, rcond=1e-12)
    half = scores @ bread * math.sqrt(clusters / max(1, clusters - 1))
    width, axes = np.linalg.eigh(half.T @ half)
    normal = generator.standard_normal((draws, len(width)))
    normal = normal * np.sqrt(np.maximum(width, 0)) @ axes.T
    freedom = max(1, clusters - 1)
    tail = np.sqrt(freedom / generator.chisquare(freedom, draws))
    return np.asarray(x + tail[:, None] * (normal / scale) @ ways.T)


def normal_spread(residual: Floats, unknowns: int = 5) -> float:
    """Return the standard deviation of residuals (P,) about a surface, outliers aside.

    It is that of normal noise with the same median absolute residual, not counting as many of the
    smallest as there are unknowns, which a fit may pass through.
    """
    size = np.sort(np.abs(residual))
    passed = min(unknowns, len(size) - 1)
    return max(1e-12, float(np.median(size[passed:])) / float(special.ndtri(0.75)))


def unfitted_residuals(data: SurfaceData, x: Floats, ways: Floats) -> Floats:
    """Return log residuals (P,) as large as the noise: what the fit took up is given back.

    A run that pulls the fit towards itself has too small a residual; over one less its leverage it
    is that about a fit without the run (the HC3 correction of MacKinnon and White 1985). The
    surface at x (K,) is by nearly least squares on log loss, its unknowns moved along `ways`.
    """
    basis, size, _ = np.linalg.svd(data.fitted(x)[1] @ ways, full_matrices=False)
    leverage = (basis[:, size > 1e-10 * size[0]] ** 2).sum(axis=1)
    return np.asarray(data.log_residuals(x) / np.maximum(1 - leverage, 1 / len(data)))


def within(residual: Floats, delta: float) -> Floats:
    """Return how likely each residual (P,) was to lie within delta of zero.

    A normal kernel with the width of Silverman's rule: whether it does lie there tells too little.
    """
    width = math.hypot(1.06 * normal_spread(residual) * len(residual) ** -0.2, delta)
    below, above = ((side * delta - residual) / width for side in (-1, 1))
    return np.asarray(special.ndtr(above) - special.ndtr(below))


def surface_intervals(
    fit: SurfaceFit, draws: Floats, *, level: float = LEVEL, slope: float = 1.0
) -> Mapping[str, Estimate]:
    """Return the percentile interval of each of `QUANTITIES`; `slope` as for `surface_draws`."""
    assert fit.surface is not None
    s = fit.surface
    values = (*s.row, *map(float, compute_exponents(s.alpha, s.beta, slope)))
    columns = np.where(np.isfinite(draws).all(axis=1, keepdims=True), draws, math.nan).T
    return {
        name: draws_interval(value, column, level=level)
        for name, value, column in zip(QUANTITIES, values, columns, strict=True)
    }
