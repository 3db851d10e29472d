"""Approach 1 of arXiv 2203.15556 (section 3.1): the lower envelope of training curves.

At each compute the size whose training curve is lowest there is taken for the best one, and power
laws go through those sizes. Such a point is read before its run has ended, under a learning rate
that has not decayed, and its loss is that of training batches, not of held-out text. So the
estimator is biased; it is shown beside the others for how far they disagree, and no verdict
rests on it.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.estimate import Estimate
from isoflop.fit.intervals import Floats, most_draws_interval
from isoflop.fit.laws.optima import fit_power_law
from isoflop.fit.minima.minimum import Status
from isoflop.fit.settings import USUAL, FitSettings

SMOOTHING = 0.1
"""Standard deviation of the kernel that smooths a curve, in log FLOPs."""
FIRST_SHARE = 0.1
"""Share of a run's compute up to which its curve is left out: warm-up, and loss in free fall."""
COMPUTE_POINTS = 300
"""Log-spaced values of compute at which curves are compared."""
SIZES = 3
"""Fewest sizes that must be the best one somewhere."""


class EnvelopeFit(Frozen):
    """Optimal size N = k C^a and tokens D = m C^b through the envelope, or why there are none."""

    status: Status
    message: str
    sizes: int
    """Sizes that are the best one somewhere, with smaller and larger ones to either side."""
    lowest_flops: float | None = None
    highest_flops: float | None = None
    """Compute that the envelope reaches from and to."""
    k: float | None = None
    a: Estimate | None = None
    m: float | None = None
    b: Estimate | None = None


def fit_envelope(
    table: pd.DataFrame,
    curves: pd.DataFrame,
    variant: str,
    settings: FitSettings = USUAL,
) -> EnvelopeFit | None:
    """Fit power laws to the envelope of a variant's training curves; None without curves.

    A curve is smoothed over log FLOPs by local lines under a Gaussian kernel (`SMOOTHING`), and
    the seeds of one size at one budget are averaged. Compute at which the smallest or the largest
    of the sizes there is best is left out. Intervals are by resampled runs. `curves` has a row per
    point: `run_id` as in the table, `tokens` seen, training `loss`.
    """
    own = table[(table["variant"] == variant) & (table["state"] == "finished") & table["on_ladder"]]
    runs = own[own["run_id"].isin(curves["run_id"].unique())]
    if runs.empty:
        return None
    smoothed = _Smoothed(runs, curves)
    points = smoothed.envelope(np.ones(len(runs)))
    compute, sizes, _ = points
    winners = len(np.unique(sizes))
    if winners < SIZES:
        return EnvelopeFit(
            status="edge" if len(compute) < COMPUTE_POINTS else "too_few",
            sizes=winners,
            message=f"{winners} sizes are best at some compute with a smaller and a larger one "
            f"beside them, {SIZES} needed",
        )
    generator = np.random.default_rng(settings.seed)
    draws = np.full((settings.resamples, 2), math.nan)
    for row in draws:
        times = generator.multinomial(len(runs), np.full(len(runs), 1 / len(runs)))
        drawn = smoothed.envelope(times.astype(np.float64))
        if len(np.unique(drawn[1])) >= SIZES:
            row[:] = [slope for _, slope in _laws(*drawn)]
    (k, a), (m, b) = _laws(*points)
    return EnvelopeFit(
        status="converged",
        message=f"envelope of {len(runs)} training curves through {winners} sizes",
        sizes=winners,
        lowest_flops=float(compute[0]),
        highest_flops=float(compute[-1]),
        k=k,
        a=most_draws_interval(a, draws[:, 0], settings.level),
        m=m,
        b=most_draws_interval(b, draws[:, 1], settings.level),
    )


def smoothed_curve(log_flops: Floats, losses: Floats, at: Floats) -> Floats:
    """Return losses at other log FLOPs: local lines under a Gaussian kernel."""
    offset = log_flops - at[:, None]
    weights = np.exp(-0.5 * (offset / SMOOTHING) ** 2)
    total = weights.sum(axis=1, keepdims=True)
    centre = (weights * offset).sum(axis=1, keepdims=True) / total
    spread = (weights * (offset - centre) ** 2).sum(axis=1)
    mean = weights @ losses / total[:, 0]
    slope = (weights * (offset - centre)) @ losses / np.maximum(spread, 1e-300)
    return np.asarray(mean - slope * centre[:, 0])


def _laws(compute: Floats, *columns: Floats) -> list[tuple[float, float]]:
    """Return k and a of the power law of each column in compute."""
    laws = [fit_power_law(compute, one) for one in columns]
    return [(law.k.value, law.a.value) for law in laws if law.k and law.a]


class _Smoothed:
    """Smoothed curves (runs, C) on one grid of compute, NaN outside a run's own compute.

    Runs of one size at one budget are one group.
    """

    def __init__(self, runs: pd.DataFrame, curves: pd.DataFrame) -> None:
        per_token = 3 * runs["forward_flops"].to_numpy()
        ends = np.log(per_token * runs["tokens"].to_numpy())
        starts = ends + math.log(FIRST_SHARE)
        self.grid = np.linspace(starts.min(), ends.max(), COMPUTE_POINTS)
        self.losses = np.full((len(runs), COMPUTE_POINTS), math.nan)
        by_run = dict(list(curves.astype({"tokens": float, "loss": float}).groupby("run_id")))
        for i, run_id in enumerate(runs["run_id"]):
            log_flops = np.log(per_token[i] * by_run[run_id]["tokens"].to_numpy())
            inside = (self.grid >= starts[i]) & (self.grid <= ends[i] + 1e-9)
            points = by_run[run_id]["loss"].to_numpy()
            self.losses[i, inside] = smoothed_curve(log_flops, points, self.grid[inside])
        groups = runs.groupby(["budget_flops", "parameters"], sort=True)
        self.parameters = groups["parameters"].first().to_numpy()
        self.flops_per_token = 3 * groups["forward_flops"].mean().to_numpy()
        self.of_group = groups.ngroup().to_numpy() == np.arange(len(self.parameters))[:, None]

    def envelope(self, times: Floats) -> tuple[Floats, Floats, Floats]:
        """Return compute, best sizes and their tokens, where smaller and larger ones are worse."""
        there = np.isfinite(self.losses) * times[:, None]
        count = self.of_group @ there
        total = self.of_group @ (np.where(there > 0, self.losses, 0.0) * times[:, None])
        with np.errstate(invalid="ignore", divide="ignore"):
            heights = np.where(count > 0, total / count, math.inf)
        best = heights.argmin(axis=0)
        winner = self.parameters[best]
        sizes = np.where(count > 0, self.parameters[:, None], math.nan)
        kept = (sizes < winner).any(axis=0) & (sizes > winner).any(axis=0)
        compute = np.exp(self.grid[kept])
        return compute, winner[kept], compute / self.flops_per_token[best[kept]]
