"""How far the noise of the runs moves a fitted surface, by its derivatives at the fit.

Axes: P runs, K = 5 unknowns (log E, log A, log B, alpha, beta) with the coefficients at N0 and D0,
F directions that these may move in.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from isoflop.fit.intervals import Floats
from isoflop.fit.surfaces.data import SurfaceData


def fitted_losses(data: SurfaceData, x: Floats) -> tuple[Floats, Floats]:
    """Return the losses (P,) of the surface at x (K,), and the derivatives (P, K) of their log."""
    terms = np.exp(x[:3] - np.stack([np.zeros_like(data.u), x[3] * data.u, x[4] * data.v], 1))
    total = terms.sum(axis=1)
    columns = [*terms.T, -terms[:, 1] * data.u, -terms[:, 2] * data.v]
    return total, np.stack(columns, axis=1) / total[:, None]


def normal_spread(residual: Floats, unknowns: int = 5) -> float:
    """Return the standard deviation of residuals (P,) about a surface, outliers aside.

    It is that of normal noise with the same median absolute residual, not counting as many of the
    smallest as there are unknowns, which a fit may pass through.
    """
    size = np.sort(np.abs(residual))
    passed = min(unknowns, len(size) - 1)
    return max(1e-12, float(np.median(size[passed:])) / stats.norm.ppf(0.75))


def unfitted_residuals(data: SurfaceData, x: Floats, ways: Floats) -> Floats:
    """Return log residuals (P,) as large as the noise: what the fit took up is given back.

    A run that pulls the fit towards itself has too small a residual; over one less its leverage it
    is that about a fit without the run (the HC3 correction of MacKinnon and White 1985).

    Args:
        data: the runs.
        x: the surface by nearly least squares on log loss; (K,).
        ways: directions that the unknowns may move in, (K, F).
    """
    total, jacobian = fitted_losses(data, x)
    basis, size, _ = np.linalg.svd(jacobian @ ways, full_matrices=False)
    leverage = (basis[:, size > 1e-10 * size[0]] ** 2).sum(axis=1)
    residual = np.log(data.losses / total)
    return np.asarray(residual / np.maximum(1 - leverage, 1 / len(total)))


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

    It is Student's, about x, with the sandwich covariance of an M-estimator (Huber 1967), in which
    the runs of a cluster are summed before they are squared (Liang and Zeger 1986).

    Args:
        data: the runs.
        x: the fit, (K,).
        labels: cluster of each run, from 0; (P,).
        ways: directions that the unknowns may move in, (K, F).
        delta: of the Huber loss on log loss; None for least squares on the loss.
        draws: how many.
        generator: of the draws.
    """
    total, jacobian = fitted_losses(data, x)
    if delta is None:
        jacobian = jacobian * total[:, None]
        slope, bend = total - data.losses, np.ones_like(total)
    else:
        # How likely each run is to lie where the Huber loss bends: noise may differ between runs.
        residual = np.log(total / data.losses)
        slope, bend = np.clip(residual / delta, -1, 1), within(residual, delta) / delta
    jacobian = jacobian @ ways
    clusters = int(labels.max()) + 1
    scores = np.stack(
        [np.bincount(labels, slope * column, clusters) for column in jacobian.T], axis=1
    )
    # Columns differ by orders of magnitude, and one of a term that is zero has no inverse.
    scale = np.maximum(np.linalg.norm(jacobian, axis=0), 1e-300)
    bread = np.linalg.pinv((jacobian / scale).T * bend @ (jacobian / scale), rcond=1e-12)
    half = (scores / scale) @ bread * math.sqrt(clusters / max(1, clusters - 1))
    covariance = half.T @ half
    width, axes = np.linalg.eigh(covariance)
    shape = (draws, len(width))
    normal = generator.standard_normal(shape) * np.sqrt(np.maximum(width, 0)) @ axes.T
    freedom = max(1, clusters - 1)
    tail = np.sqrt(freedom / generator.chisquare(freedom, draws))
    return np.asarray(x + tail[:, None] * (normal / scale) @ ways.T)


def within(residual: Floats, delta: float) -> Floats:
    """Return how likely each residual (P,) was to lie within delta of zero.

    A normal kernel with the width of Silverman's rule: whether it does lie there tells too little.
    """
    width = math.hypot(1.06 * normal_spread(residual) * len(residual) ** -0.2, delta)
    below, above = ((side * delta - residual) / width for side in (-1, 1))
    return np.asarray(stats.norm.cdf(above) - stats.norm.cdf(below))
