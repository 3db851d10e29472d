"""Bootstrap over runs and over documents. Checkpoints of one run are never resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from isoflop.estimate import LEVEL, Estimate
from isoflop.fit.interval import percentile_interval
from isoflop.fit.minimum import Floats

Run = TypeVar("Run")
RESAMPLES = 1000


def bootstrap(
    groups: Sequence[Sequence[Run]],
    statistic: Callable[[list[list[Run]]], float | None],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
    clustered: bool = False,
) -> Estimate:
    """Return the percentile interval of a statistic of runs.

    Args:
        groups: runs that are alike, for example the seeds of one size. Runs are drawn with
            replacement within each group, so that the grid of sizes stays as it is. A group of
            one run adds no noise to the interval.
        statistic: value of resampled groups; None where it has none, as a minimum at an edge.
        resamples: how many times to draw.
        seed: of the draws.
        level: probability that the interval is to hold.
        clustered: draw whole groups instead, for runs of a group that share something (a data
            order, an initialisation) and so are not independent.

    Raises:
        ValueError: no groups, an empty one, or a statistic without a value on the runs as they
            are or on any resample.
    """
    if not groups or not all(len(group) for group in groups):
        raise ValueError(
            f"groups have {[len(group) for group in groups]} runs; expected at least one in each"
        )
    _check_resamples(resamples)
    value = statistic([list(group) for group in groups])
    if value is None:
        raise ValueError("the statistic has no value on the runs; look at its status first")
    generator = np.random.default_rng(seed)
    draws = []
    for _ in range(resamples):
        if clustered:
            chosen = generator.integers(len(groups), size=len(groups))
            drawn = [list(groups[i]) for i in chosen]
        else:
            drawn = [
                [group[i] for i in generator.integers(len(group), size=len(group))]
                for group in groups
            ]
        draws.append(statistic(drawn))
    found = [math.nan if draw is None else draw for draw in draws]
    return percentile_interval(value, found, level=level)


def bootstrap_documents(
    losses: ArrayLike,
    tokens: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the interval of a run's loss over documents, in nats per token.

    Tokens of one document are alike, so documents are drawn, each with its own length.

    Args:
        losses: summed negative log-likelihood of each document, nats.
        tokens: tokens of each document.
        resamples: how many times to draw.
        seed: of the draws.
        level: probability that the interval is to hold.

    Raises:
        ValueError: lengths differ, or there is no token.
    """
    return _document_interval(_documents("losses", losses, tokens), tokens, resamples, seed, level)


def bootstrap_document_difference(
    first: ArrayLike,
    second: ArrayLike,
    tokens: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the paired interval of the difference `first` - `second` of two runs' losses.

    Both runs are measured on the same drawn documents, so that what makes a document hard for
    both cancels. Arguments and errors as for `bootstrap_documents`.
    """
    difference = _documents("first", first, tokens) - _documents("second", second, tokens)
    return _document_interval(difference, tokens, resamples, seed, level)


def _documents(name: str, losses: ArrayLike, tokens: ArrayLike) -> Floats:
    sums, counts = np.asarray(losses, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if sums.shape != counts.shape or sums.ndim != 1:
        raise ValueError(
            f"{name} and tokens have shapes {sums.shape} and {counts.shape}; "
            "expected one value per document in both"
        )
    if not np.isfinite(sums).all() or (counts <= 0).any() or not sums.size:
        raise ValueError(f"{name} must be finite, with at least one document and token in each")
    return sums


def _document_interval(
    sums: Floats, tokens: ArrayLike, resamples: int, seed: int, level: float
) -> Estimate:
    _check_resamples(resamples)
    counts = np.asarray(tokens, dtype=np.float64)
    generator = np.random.default_rng(seed)
    even = np.full(len(sums), 1 / len(sums))
    draws = np.empty(resamples)
    for i in range(resamples):
        times = generator.multinomial(len(sums), even)
        draws[i] = times @ sums / (times @ counts)
    return percentile_interval(float(sums.sum() / counts.sum()), draws, level=level)


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1")
