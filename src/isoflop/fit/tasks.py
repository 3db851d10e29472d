"""Scores in tasks: what they follow from, and what they will be where the loss is predicted.

Two steps, as ladders of small models are used (arXiv 2412.04403): the loss from compute, which
`predictions` tells, and the score from the loss, a sigmoid that all variants share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.intervals import Floats, most_draws_interval

FEWEST = 8
"""Runs with scores below which no sigmoid is fitted."""
RESAMPLES = 200
_LEAST_ERROR = 0.01
"""Standard error that every score has at least: tasks differ by more than their samples."""


def sigmoid(losses: ArrayLike, curve: ArrayLike) -> Floats:
    """Return floor + height / (1 + exp(slope (loss - middle))) of a curve of these four."""
    floor, height, slope, middle = np.moveaxis(np.asarray(curve, dtype=np.float64), -1, 0)
    found: Floats = floor + height * special.expit(-slope * (np.asarray(losses) - middle))
    return found


def fit_sigmoid(losses: Floats, scores: Floats, errors: Floats) -> Floats:
    """Return the curve of least squares through scores from 0 to 1, each over its error, (4,)."""
    spread, weights = float(np.ptp(losses)), np.hypot(errors, _LEAST_ERROR)
    low, high = losses.min() - spread, losses.max() + spread
    start = (scores.min(), max(np.ptp(scores), 0.01), 4 / spread, np.median(losses))
    bounds = ((0, 0, 0, low), (1, 1, 100 / spread, high))
    inside = np.clip(start, np.array(bounds[0]) + 1e-9, np.array(bounds[1]) - 1e-9)

    def off(curve: Floats) -> Floats:
        return (sigmoid(losses, curve) - scores) / weights

    def slopes(curve: Floats) -> Floats:
        _, height, slope, middle = curve
        share = special.expit(-slope * (losses - middle))
        turn = height * share * (1 - share)
        columns = np.ones_like(losses), share, -turn * (losses - middle), turn * slope
        return np.column_stack(columns) / weights[:, None]

    return np.asarray(optimize.least_squares(off, inside, slopes, bounds=bounds).x)


def predict_score(
    losses: ArrayLike, scores: ArrayLike, errors: ArrayLike, loss: Estimate, *, seed: int = 0
) -> Estimate:
    """Return the score at a predicted loss; its interval holds that of the loss, and other runs.

    Losses, scores from 0 to 1 and their standard errors are of the runs that have scores, (n,). A
    ValueError where they are fewer than `FEWEST`, or all have one loss.
    """
    told = np.array([losses, scores, errors], dtype=np.float64)
    runs = told.shape[1]
    if runs < FEWEST or not np.ptp(told[0]) > 0:
        raise ValueError(f"{runs} runs have scores; expected {FEWEST} or more, of several losses")
    generator = np.random.default_rng(seed)
    value, draws = float(sigmoid(loss.value, fit_sigmoid(*told))), np.full(RESAMPLES, np.nan)
    off = 0.0
    if loss.low is not None and loss.high is not None:
        off = (loss.high - loss.low) / 2 / float(special.ndtri((1 + (loss.level or LEVEL)) / 2))
    for draw in range(RESAMPLES):
        copied = told[:, generator.integers(runs, size=runs)]
        at = loss.value + off * generator.standard_normal()
        if np.ptp(copied[0]) > 0:
            draws[draw] = sigmoid(at, fit_sigmoid(*copied))
    return most_draws_interval(value, draws, LEVEL)
