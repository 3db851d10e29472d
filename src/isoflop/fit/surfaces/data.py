"""What every fit of the loss surface shares: scaled runs, and the judgement of a result.

Axes: P runs, K = 5 unknowns (log E, log A, log B, alpha, beta) with the coefficients at N0 and D0,
the geometric means of the runs, so that they are of order one whatever the scale; F directions
that these may move in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import Status
from isoflop.fit.settings import Estimator, FitSettings
from isoflop.fit.surfaces.surface import Surface, SurfaceFit

EXPONENTS = (0.01, 4.0)
"""Bounds of alpha and beta; a fit that ends on them has not found them."""
EQUAL_EXPONENTS: Floats = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], dtype=np.float64
)
"""Directions (K, F) while alpha = beta."""
SMALLEST_SHARE = 1e-6
"""A term below this share of the loss everywhere is at its bound, zero."""
WORST_CONDITION = 1e3
"""Three budgets give about 50; one, where tokens follow from size, several thousand."""
LEAST_SPREAD = 0.1
"""Of runs across the line that they lie along in log size and log tokens, over that along it. Three
budgets have about 0.5. One has a few hundredths, and then noise may still bend the surface so that
its condition number looks good."""
ROUGH_RUNS = 2000
"""More runs than these hardly change which starts are good."""


@dataclass(frozen=True, eq=False)
class SurfaceData:
    """Runs: logs of size and tokens about their means, losses, and the means."""

    u: Floats
    v: Floats
    losses: Floats
    log_n0: float
    log_d0: float

    @classmethod
    def of(cls, parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike) -> SurfaceData:
        """Return runs by N, D and loss in nats per token of each.

        Raises:
            ValueError: lengths differ, there is no run, or a value is not positive and finite.
        """
        arrays = {
            name: np.asarray(values, dtype=np.float64)
            for name, values in (("parameters", parameters), ("tokens", tokens), ("losses", losses))
        }
        shapes = {name: values.shape for name, values in arrays.items()}
        one_each = len(set(shapes.values())) == 1 and arrays["losses"].ndim == 1
        if not one_each or not arrays["losses"].size:
            raise ValueError(
                f"the columns have shapes {shapes}; expected one value per run in each"
            )
        for name, values in arrays.items():
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(
                    f"{name} must be positive and finite; leave diverged runs out before fitting"
                )
        log_n, log_d = np.log(arrays["parameters"]), np.log(arrays["tokens"])
        n0, d0 = float(log_n.mean()), float(log_d.mean())
        return cls(log_n - n0, log_d - d0, arrays["losses"], n0, d0)

    def __len__(self) -> int:
        return len(self.losses)

    def surface(self, e: float, a: float, b: float, alpha: float, beta: float) -> Surface:
        """Return the surface whose coefficients at N0 and D0 are e, a and b."""
        return Surface(
            E=e,
            A=a * math.exp(alpha * self.log_n0),
            B=b * math.exp(beta * self.log_d0),
            alpha=alpha,
            beta=beta,
        )

    def unknowns(self, surface: Surface) -> Floats:
        """Return the unknowns (K,) of a surface; the log of a term of zero is minus infinity."""
        s = surface
        with np.errstate(divide="ignore"):
            log_e, log_a, log_b = np.log([s.E, s.A, s.B]).tolist()
        return np.array(
            [log_e, log_a - s.alpha * self.log_n0, log_b - s.beta * self.log_d0, s.alpha, s.beta]
        )

    def terms(self, alpha: float, beta: float) -> Floats:
        """Return 1, (N / N0)^-alpha and (D / D0)^-beta of each run, shape (P, 3)."""
        return np.stack([np.ones_like(self.u), np.exp(-alpha * self.u), np.exp(-beta * self.v)], 1)

    def thinned(self) -> SurfaceData:
        """Return at most `ROUGH_RUNS` of the runs, drawn the same way every time, means as here.

        Where a search starts is found on these; where it ends, on all.
        """
        if len(self) <= ROUGH_RUNS:
            return self
        kept = np.random.default_rng(0).choice(len(self), ROUGH_RUNS, replace=False)
        return replace(self, u=self.u[kept], v=self.v[kept], losses=self.losses[kept])


@dataclass(frozen=True)
class SurfaceEstimator:
    """How a surface is fitted to runs of all budgets."""

    name: Estimator
    words: str
    """What a person reads."""
    fit: Callable[[SurfaceData, FitSettings], SurfaceFit]


def directions(*, equal_exponents: bool) -> Floats:
    """Return the directions (K, F) in which a surface's unknowns may move."""
    return EQUAL_EXPONENTS if equal_exponents else np.eye(5)


def too_few_pairs(data: SurfaceData, made: SurfaceFit) -> SurfaceFit | None:
    """Return the refusal of fewer distinct pairs of size and tokens than one over the unknowns."""
    found = len(np.unique(np.stack([data.u, data.v]), axis=1).T)
    needed = directions(equal_exponents=made.equal_exponents).shape[1] + 1
    if found >= needed:
        return None
    message = f"{found} distinct pairs of size and tokens, {needed} needed"
    return made.model_copy(update={"status": "too_few", "message": message})


def judged(data: SurfaceData, made: SurfaceFit, surface: Surface, settled: bool) -> SurfaceFit:
    """Return a fit with its surface, its diagnostics and a status.

    Args:
        data: the runs.
        made: the fit without these.
        surface: that the search ended at.
        settled: whether it ended at a minimum.
    """
    a = surface.A * math.exp(-surface.alpha * data.log_n0)
    b = surface.B * math.exp(-surface.beta * data.log_d0)
    parts = data.terms(surface.alpha, surface.beta) * np.array([surface.E, a, b])
    fitted = parts.sum(axis=1)
    shares = parts / fitted[:, None]
    columns = np.column_stack([shares, -shares[:, 1] * data.u, -shares[:, 2] * data.v])
    columns = columns @ directions(equal_exponents=made.equal_exponents)
    norms = np.linalg.norm(columns, axis=0)
    condition = float(np.linalg.cond(columns / norms)) if (norms > 0).all() else math.inf
    status: Status = "converged"
    message = f"surface through {len(data)} runs"
    bounds = _bounds(surface, shares)
    if not settled:
        status, message = "not_converged", "the optimiser stopped before the minimum"
    elif bounds:
        status, message = "at_bound", "; ".join(bounds)
    elif _spread(data) < LEAST_SPREAD:
        status = "ill_conditioned"
        message = (
            "tokens follow from size, as at a single budget, so that the runs do not tell the "
            "coefficients apart; more budgets would"
        )
    elif condition > WORST_CONDITION:
        status = "ill_conditioned"
        message = (
            f"the runs hardly tell the coefficients apart (condition number {condition:.2g}); "
            "more budgets, or a wider range of sizes, would"
        )
    return made.model_copy(
        update={
            "status": status,
            "message": message,
            "surface": surface if settled else None,
            "condition": condition if math.isfinite(condition) else None,
            "residual": float(np.sqrt(np.mean(np.log(fitted / data.losses) ** 2))),
        }
    )


def _bounds(surface: Surface, shares: Floats) -> list[str]:
    """Return in words which unknowns are at their bounds; `shares` (P, 3) of the loss."""
    exponents = (("alpha", surface.alpha), ("beta", surface.beta))
    bounds = [
        f"{name} is {value:.4g}, at its bound"
        for name, value in exponents
        if not EXPONENTS[0] * 1.001 < value < EXPONENTS[1] * 0.999
    ]
    largest = zip("EAB", shares.max(axis=0), strict=True)
    return bounds + [f"{name} is zero" for name, share in largest if share < SMALLEST_SHARE]


def _spread(data: SurfaceData) -> float:
    """Return how far runs spread across the line they lie along, over how far along it."""
    along, across = np.linalg.svd(np.column_stack([data.u, data.v]), compute_uv=False).tolist()
    return float(across / along) if along else 0.0
