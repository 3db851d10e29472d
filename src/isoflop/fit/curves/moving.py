"""Runs of nearly equal compute as runs of one budget, each moved to it along a fitted surface.

Runs of a table are grouped to budgets within a tolerance. What a run has more or less of compute
than its budget it has more or less of tokens, and that changes its loss by a few hundredths: enough
to move a minimum by half its size. At the same N the run is moved to D' = D C / C_own, and
its loss by what the surface changes: loss + S(N, D') - S(N, D).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from isoflop.fit.intervals import Floats
from isoflop.fit.minima import CURVE_ESTIMATORS
from isoflop.fit.minima.draws import CurveDraws
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.surfaces.goodness import following, noise_about
from isoflop.fit.surfaces.sample import Samples
from isoflop.fit.surfaces.surface import Surface
from isoflop.fit.tables.frame import run_flops

EXACT = 1e-9
"""Compute that differs by no more is the budget's."""
LARGEST_SCATTER = 0.01
"""Of log compute about the budget, up to which a curve of runs that cannot be moved is used. At
a minimum loss falls by 0.2 to 0.5 nats for each unit of log tokens, so that this is half a
hundredth, as much as runs scatter."""


def scatter(rows: pd.DataFrame) -> float:
    """Return how far the runs' compute lies from their budgets, the largest absolute log."""
    return float(np.abs(_log_off(rows)).max(initial=0.0))


def moved_draws(table: pd.DataFrame, samples: Samples, settings: FitSettings) -> CurveDraws:
    """Return the noisy minima of the curves of a table whose runs are each at its budget.

    Runs are moved along the first surface of their variant that lies through them; it tells their
    noise as well, where a curve does not.
    """
    surfaces = {name: following(one.fit for one in own.values()) for name, own in samples.items()}
    noises = {
        name: noise_about(next(iter(own.values())).rows, surfaces[name])
        for name, own in samples.items()
    }
    return CurveDraws(at_budgets(table, surfaces), settings, noises)


def at_budgets(table: pd.DataFrame, surfaces: Mapping[str, Surface | None]) -> pd.DataFrame:
    """Return the table with each run at its budget: tokens, loss and `training_flops` moved.

    Runs of exactly their budget's compute stay as they are, and so do those of a variant without
    a surface.
    """
    log_off = _log_off(table)
    moving = (np.abs(log_off) > EXACT) & (table["state"] == "finished").to_numpy()
    moving &= table["variant"].isin([n for n, one in surfaces.items() if one]).to_numpy()
    if not moving.any():
        return table
    n, d, loss = (table[one].to_numpy(dtype=np.float64) for one in ("parameters", "tokens", "loss"))
    tokens, losses = np.where(moving, d * np.exp(-log_off), d), loss.copy()
    for name, surface in surfaces.items():
        if surface is not None:
            here = moving & (table["variant"] == name).to_numpy()
            losses[here] += surface.loss(n[here], tokens[here]) - surface.loss(n[here], d[here])
    own = np.where(moving, table["budget_flops"], run_flops(table))
    return table.assign(tokens=tokens, loss=losses, training_flops=own)


def curve_minimum(rows: pd.DataFrame, estimator: Estimator) -> Minimum:
    """Return the minimum of a curve's runs by one of `CURVE_ESTIMATORS`, or why there is none."""
    find = CURVE_ESTIMATORS[estimator].find
    found = find(rows["parameters"].to_numpy(), rows["loss"].to_numpy())
    off = scatter(rows)
    if found.loss is None or off <= LARGEST_SCATTER:
        return found
    return Minimum(
        estimator=estimator,
        status="scattered",
        message=f"compute lies up to {off:.1%} from the budget, and no surface tells what that "
        "does to the loss; more budgets, or a smaller tolerance, would",
    )


def _log_off(rows: pd.DataFrame) -> Floats:
    """Return log of each run's compute over its budget; 0 for runs without, that go nowhere."""
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.log(run_flops(rows) / rows["budget_flops"].to_numpy(dtype=np.float64))
    return np.where(np.isfinite(off), off, 0.0)
