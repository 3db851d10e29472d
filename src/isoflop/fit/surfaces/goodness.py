"""How well a surface goes through its runs, and how far several are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import special

from isoflop.config import Frozen
from isoflop.fit.minima.draws import RunNoise
from isoflop.fit.minima.minimum import Minimum
from isoflop.fit.surfaces.surface import Surface, SurfaceFit, compute_exponents

UNKNOWNS = 5
LARGEST_RESIDUAL = 0.05
"""Root mean square of log fitted over measured loss. Surfaces through runs of one recipe miss by
half a percent to two; by five, the runs differ in more than size and tokens."""
ABOVE_NOISE = 3.0
"""Residuals over the noise of repeated runs: eight ninths of their variance is then no noise."""
NEGLIGIBLE = 1e-3
"""Residuals of log loss that no use of a surface is hurt by, however exactly runs repeat."""
NOISE_CHANCE = 1e-3
"""How often noise that few repeats tell would look so small by chance."""
FAR_OFF = 0.1
"""Of log loss, from which a run may have diverged."""
TIMES_TYPICAL = 10.0
"""Residual of such a run over the median one: 6.7 standard deviations of normal ones."""


class RunMiss(Frozen):
    """The run that a surface misses by most."""

    run_id: str
    parameters: float
    tokens: float
    budget_flops: float
    measured: float
    """Nats per token."""
    fitted: float


class Goodness(Frozen):
    """How far a surface lies from its runs."""

    rms: float
    """Root mean square of fitted less measured loss, nats per token."""
    log_rms: float
    """The same of the logs."""
    largest: RunMiss
    """In log loss."""
    far_off: int = 0
    """Runs above the surface by far more than the others are off, as diverged ones are."""


class SurfaceDisagreement(Frozen):
    """How far the fits of one surface are apart: a systematic error bar."""

    fits: tuple[str, ...]
    """Those that are compared, two or more: estimators, and Huber with other deltas."""
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest E, alpha, beta and a."""


def surface_disagreement(
    fits: Mapping[str, Surface], *, slope: float = 1.0
) -> SurfaceDisagreement | None:
    """Return how far surfaces of the same runs are apart, by name; None for fewer than two."""
    if len(fits) < 2:
        return None
    columns = {
        name: [getattr(one, name) for one in fits.values()] for name in ("E", "alpha", "beta")
    }
    columns["a"] = compute_exponents(columns["alpha"], columns["beta"], slope)[0].tolist()
    ranges = {name: (min(own), max(own)) for name, own in columns.items()}
    return SurfaceDisagreement(fits=tuple(fits), ranges=ranges)


def goodness(rows: pd.DataFrame, surface: Surface) -> Goodness:
    """Return how well a surface goes through runs."""
    n, d, y = (rows[one].to_numpy(dtype=np.float64) for one in ("parameters", "tokens", "loss"))
    fitted = surface.loss(n, d)
    logs = np.log(fitted / y)
    run = rows.iloc[int(np.argmax(np.abs(logs)))]
    far = max(FAR_OFF, TIMES_TYPICAL * float(np.median(np.abs(logs))))
    rms, log_rms = (math.sqrt(float(np.mean(one**2))) for one in (fitted - y, logs))
    largest = RunMiss(
        **run[["run_id", "parameters", "tokens", "budget_flops"]],
        measured=run["loss"],
        fitted=float(surface.loss(run["parameters"], run["tokens"])),
    )
    return Goodness(
        rms=rms, log_rms=log_rms, largest=largest, far_off=int(np.count_nonzero(-logs > far))
    )


def following(fits: Iterable[SurfaceFit]) -> Surface | None:
    """Return the first surface that lies through its runs, though its terms may not be known.

    One whose irreducible loss or a term is zero stands in for a converged one. Those of a single
    budget do not do: its runs do not tell what tokens do at the same size.
    """
    several = tuple(fits)
    for status in ("converged", "at_bound"):
        for fit in several:
            if fit.status == status and fit.surface is not None:
                return fit.surface
    return None


def noise_about(rows: pd.DataFrame, surface: Surface | None) -> RunNoise | None:
    """Return how far a variant's runs scatter about a surface; None without one, or for few runs.

    It tells the noise of curves that have neither seeds nor sizes enough.
    """
    free = len(rows) - UNKNOWNS
    if surface is None or free < 1:
        return None
    spread = goodness(rows, surface).rms * math.sqrt(len(rows) / free)
    return RunNoise(source="surface", run_spread=spread, run_freedom=free)


def misfit(
    found: Goodness,
    runs: int,
    noises: Iterable[RunNoise] = (),
    minima: Sequence[Minimum] = (),
) -> str | None:
    """Return in words why a surface does not describe its runs; None where it does.

    Of the noises of each curve, what repeated runs tell counts; `minima` are the surface's.
    """
    reasons = []
    if found.log_rms > LARGEST_RESIDUAL:
        reasons.append(f"it misses the runs by {found.log_rms:.1%} of the loss")
    if found.far_off:
        most = found.largest
        reasons.append(
            f"runs far above it: {found.far_off} ({most.run_id}: a loss of {most.measured:.4g} "
            f"where it has {most.fitted:.4g}); leave what diverged out by --where with a condition "
            "on the loss"
        )
    repeated = [one for one in noises if one.source == "seeds"]
    freedom = sum(one.run_freedom for one in repeated)
    if freedom:
        parts = [(one.run_spread**2 + one.seed_spread**2) * one.run_freedom for one in repeated]
        spread = math.sqrt(sum(parts) / freedom)
        free = max(1, runs - UNKNOWNS)
        ratio = found.rms * math.sqrt(runs / free) / spread if spread else math.inf
        chance = math.sqrt(float(special.fdtri(free, freedom, 1 - NOISE_CHANCE)))
        if ratio > max(ABOVE_NOISE, chance) and found.log_rms > NEGLIGIBLE:
            reasons.append(
                f"it misses the runs by {found.rms:.2g}, {ratio:.1f} times as much as repeated "
                f"runs differ by"
            )
    outside = sum(one.status == "outside" for one in minima)
    if outside:
        reasons.append(
            f"at {outside} of {len(minima)} budgets its minimum lies outside the losses measured"
        )
    return "; ".join(reasons) or None
