"""What the two fits of the loss surface share: scaled data, and the judgement of a result."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.minimum import Floats, Status
from isoflop.fit.surface import Surface, SurfaceEstimator, SurfaceFit

EXPONENTS = (0.01, 4.0)
"""Bounds of alpha and beta; a fit that ends on them has not found them."""
STARTS = 8
"""Points of a grid of starts, the best ones, that are descended from."""
EQUAL_EXPONENTS: Floats = np.array(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]], dtype=np.float64
)
"""Directions in which (log E, log A, log B, alpha, beta) move while alpha = beta; (K, F)."""
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


@dataclass(frozen=True)
class SurfaceData:
    """Runs: logs of size and tokens about their means, losses, and the means."""

    u: Floats
    v: Floats
    losses: Floats
    log_n0: float
    log_d0: float

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
        """Return log E, log A, log B, alpha and beta with A and B at N0 and D0, shape (K,).

        The log of a term that is zero is minus infinity.
        """
        s = surface
        with np.errstate(divide="ignore"):
            log_e, log_a, log_b = np.log([s.E, s.A, s.B]).tolist()
        return np.array(
            [log_e, log_a - s.alpha * self.log_n0, log_b - s.beta * self.log_d0, s.alpha, s.beta]
        )

    def terms(self, alpha: float, beta: float) -> Floats:
        """Return 1, (N / N0)^-alpha and (D / D0)^-beta of each run, shape (runs, 3)."""
        return np.stack([np.ones_like(self.u), np.exp(-alpha * self.u), np.exp(-beta * self.v)], 1)


def thinned(data: SurfaceData) -> SurfaceData:
    """Return at most `ROUGH_RUNS` of the runs, drawn the same way every time, about the same means.

    Where a search starts is found on these; where it ends, on all.
    """
    if len(data.losses) <= ROUGH_RUNS:
        return data
    kept = np.random.default_rng(0).choice(len(data.losses), ROUGH_RUNS, replace=False)
    return replace(data, u=data.u[kept], v=data.v[kept], losses=data.losses[kept])


def checked_runs(parameters: ArrayLike, tokens: ArrayLike, losses: ArrayLike) -> SurfaceData:
    """Return the runs as arrays about their means.

    Raises:
        ValueError: lengths differ, there is no run, or a value is not positive and finite.
    """
    arrays = {
        name: np.asarray(values, dtype=np.float64)
        for name, values in (("parameters", parameters), ("tokens", tokens), ("losses", losses))
    }
    shapes = {name: values.shape for name, values in arrays.items()}
    if len(set(shapes.values())) != 1 or arrays["losses"].ndim != 1 or not arrays["losses"].size:
        raise ValueError(f"the columns have shapes {shapes}; expected one value per run in each")
    for name, values in arrays.items():
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(
                f"{name} must be positive and finite; leave diverged runs out before fitting"
            )
    log_n, log_d = np.log(arrays["parameters"]), np.log(arrays["tokens"])
    return SurfaceData(
        u=log_n - log_n.mean(),
        v=log_d - log_d.mean(),
        losses=arrays["losses"],
        log_n0=float(log_n.mean()),
        log_d0=float(log_d.mean()),
    )


def directions(*, equal_exponents: bool) -> Floats:
    """Return the directions (K, F) in which a surface's unknowns may move."""
    return EQUAL_EXPONENTS if equal_exponents else np.eye(5)


def distinct_pairs(data: SurfaceData) -> int:
    """Return how many different pairs of size and tokens there are."""
    return len(np.unique(np.stack([data.u, data.v]), axis=1).T)


def too_few_pairs(
    estimator: SurfaceEstimator, data: SurfaceData, *, equal_exponents: bool
) -> SurfaceFit | None:
    """Return the refusal of fewer distinct pairs of size and tokens than one over the unknowns."""
    found, needed = distinct_pairs(data), directions(equal_exponents=equal_exponents).shape[1] + 1
    if found >= needed:
        return None
    return SurfaceFit(
        estimator=estimator,
        status="too_few",
        points=len(data.losses),
        message=f"{found} distinct pairs of size and tokens, {needed} needed",
        equal_exponents=equal_exponents,
    )


def judged(
    estimator: SurfaceEstimator,
    data: SurfaceData,
    surface: Surface,
    settled: bool,
    *,
    equal_exponents: bool,
) -> SurfaceFit:
    """Return the fit with its diagnostics and a status."""
    a = surface.A * math.exp(-surface.alpha * data.log_n0)
    b = surface.B * math.exp(-surface.beta * data.log_d0)
    parts = data.terms(surface.alpha, surface.beta) * np.array([surface.E, a, b])
    fitted = parts.sum(axis=1)
    shares = parts / fitted[:, None]
    columns = np.column_stack([shares, -shares[:, 1] * data.u, -shares[:, 2] * data.v])
    columns = columns @ directions(equal_exponents=equal_exponents)
    norms = np.linalg.norm(columns, axis=0)
    residual = float(np.sqrt(np.mean(np.log(fitted / data.losses) ** 2)))

    bounds = [
        f"{name} is {value:.4g}, at its bound"
        for name, value in (("alpha", surface.alpha), ("beta", surface.beta))
        if not EXPONENTS[0] * 1.001 < value < EXPONENTS[1] * 0.999
    ]
    bounds += [
        f"{name} is zero"
        for name, share in zip("EAB", shares.max(axis=0), strict=True)
        if share < SMALLEST_SHARE
    ]
    condition = float(np.linalg.cond(columns / norms)) if (norms > 0).all() else math.inf
    status: Status = "converged"
    message = f"surface through {len(data.losses)} runs"
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
    return SurfaceFit(
        estimator=estimator,
        status=status,
        message=message,
        surface=surface if settled else None,
        points=len(data.losses),
        condition=condition if math.isfinite(condition) else None,
        residual=residual,
        equal_exponents=equal_exponents,
    )


def _spread(data: SurfaceData) -> float:
    """Return how far runs spread across the line they lie along, over how far along it."""
    along, across = np.linalg.svd(np.column_stack([data.u, data.v]), compute_uv=False).tolist()
    return float(across / along) if along else 0.0
