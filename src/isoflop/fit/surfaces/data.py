"""Runs as every fit of the loss surface sees them, and the judgement of what a search found.

Axes: P runs, K = 5 unknowns (log E, log A, log B, alpha, beta) with the coefficients at N0 and D0,
the geometric means of the runs, so that they are of order one whatever the scale; F directions
that these may move in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isoflop.fit.intervals import Floats
from isoflop.fit.minima.minimum import Status
from isoflop.fit.settings import USUAL, Estimator, FitSettings
from isoflop.fit.surfaces.surface import Surface, SurfaceFit

EXPONENTS = (0.01, 4.0)
"""Bounds of alpha and beta; a fit that ends on them has not found them."""
DIRECTIONS: Mapping[bool, Floats] = {False: np.eye(5), True: np.eye(4)[[0, 1, 2, 3, 3]]}
"""Directions (K, F) in which the unknowns may move, by whether alpha = beta."""
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
            ValueError: a value is not positive and finite.
        """
        runs = np.array([parameters, tokens, losses], dtype=np.float64)
        if not (np.isfinite(runs) & (runs > 0)).all():
            raise ValueError(
                "parameters, tokens and losses must be positive and finite; leave diverged runs "
                "out before fitting"
            )
        log_n, log_d = np.log(runs[:2])
        n0, d0 = float(log_n.mean()), float(log_d.mean())
        return cls(log_n - n0, log_d - d0, runs[2], n0, d0)

    def __len__(self) -> int:
        return len(self.losses)

    def coefficients(self, x: Floats) -> Floats:
        """Return E, A, B, alpha and beta of unknowns, both (R, K)."""
        at_one = np.stack([0 * x[:, 3], x[:, 3] * self.log_n0, x[:, 4] * self.log_d0], 1)
        with np.errstate(over="ignore", invalid="ignore"):
            return np.concatenate([np.exp(x[:, :3] + at_one), x[:, 3:]], axis=1)

    def surface(self, e: float, a: float, b: float, alpha: float, beta: float) -> Surface:
        """Return the surface whose coefficients at N0 and D0 are e, a and b."""
        a, b = a * math.exp(alpha * self.log_n0), b * math.exp(beta * self.log_d0)
        return Surface(E=e, A=a, B=b, alpha=alpha, beta=beta)

    def unknowns(self, surface: Surface) -> Floats:
        """Return the unknowns (K,) of a surface; the log of a term of zero is minus infinity."""
        *terms, alpha, beta = surface.row
        with np.errstate(divide="ignore"):
            logs = np.log(terms) - np.array([0.0, alpha * self.log_n0, beta * self.log_d0])
        return np.array([*logs, alpha, beta])

    def terms(self, alpha: float, beta: float) -> Floats:
        """Return 1, (N / N0)^-alpha and (D / D0)^-beta of each run, shape (P, 3)."""
        return np.stack([np.ones_like(self.u), np.exp(-alpha * self.u), np.exp(-beta * self.v)], 1)

    def fitted(self, x: Floats) -> tuple[Floats, Floats]:
        """Return the losses (P,) of the surface at x (K,), and derivatives (P, K) of their log."""
        falls = np.stack([np.zeros_like(self.u), x[3] * self.u, x[4] * self.v], axis=1)
        parts = np.exp(x[:3] - falls)
        total = parts.sum(axis=1)
        columns = np.column_stack([parts, -parts[:, 1] * self.u, -parts[:, 2] * self.v])
        return total, columns / total[:, None]

    def log_residuals(self, x: Floats) -> Floats:
        """Return log loss less log fitted loss (P,) about the surface at x (K,)."""
        return np.log(self.losses / self.fitted(x)[0])

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
    robust: bool
    """Whether by Huber loss on log loss, else by least squares on the loss."""
    search: Callable[[SurfaceData, FitSettings], tuple[Surface, bool]]
    """Where a search ends, and whether that is at a minimum."""

    def fit(self, data: SurfaceData, settings: FitSettings = USUAL) -> SurfaceFit:
        """Return the surface through runs, or why there is none: by `equal_exponents` and `delta`.

        The delta is the residual of log loss above which a run counts linearly.
        """
        made = SurfaceFit(
            estimator=self.name,
            status="not_converged",
            message="the optimiser stopped before the minimum",
            points=len(data),
            equal_exponents=settings.equal_exponents,
            delta=settings.delta if self.robust else None,
        )
        found = len(set(zip(data.u.tolist(), data.v.tolist(), strict=True)))
        needed = DIRECTIONS[settings.equal_exponents].shape[1] + 1
        if found < needed:
            message = f"{found} distinct pairs of size and tokens, {needed} needed"
            return made.model_copy(update={"status": "too_few", "message": message})
        surface, settled = self.search(data, settings)
        alpha, beta = surface.alpha, surface.beta
        if not EXPONENTS[0] < min(alpha, beta) <= max(alpha, beta) < EXPONENTS[1]:
            message = (
                f"alpha and beta ran to {alpha:.3g} and {beta:.3g}, bounds are "
                f"{EXPONENTS[0]} to {EXPONENTS[1]}"
            )
            return made.model_copy(update={"status": "at_bound", "message": message})
        fitted, shares = data.fitted(data.unknowns(surface))
        ways = shares @ DIRECTIONS[settings.equal_exponents]
        norms = np.linalg.norm(ways, axis=0)
        condition = float(np.linalg.cond(ways / norms)) if (norms > 0).all() else math.inf
        known: dict[str, object] = {
            "condition": condition if math.isfinite(condition) else None,
            "residual": float(np.sqrt(np.mean(np.log(fitted / data.losses) ** 2))),
        }
        if settled:
            status, message = _judged(data, surface, shares, condition)
            known |= {"status": status, "message": message, "surface": surface}
        return made.model_copy(update=known)


def _judged(
    data: SurfaceData, surface: Surface, shares: Floats, condition: float
) -> tuple[Status, str]:
    """Return how good a surface is, by its derivatives in the unknowns, and that in words."""
    bounds = [
        f"{name} is {value:.4g}, at its bound"
        for name, value in (("alpha", surface.alpha), ("beta", surface.beta))
        if not EXPONENTS[0] * 1.001 < value < EXPONENTS[1] * 0.999
    ]
    largest = zip("EAB", shares[:, :3].max(axis=0), strict=True)
    bounds += [f"{name} is zero" for name, share in largest if share < SMALLEST_SHARE]
    if bounds:
        return "at_bound", "; ".join(bounds)
    along, across = np.linalg.svd(np.column_stack([data.u, data.v]), compute_uv=False).tolist()
    if across < LEAST_SPREAD * along or not along:
        return "ill_conditioned", (
            "tokens follow from size, as at a single budget, so that the runs do not tell the "
            "coefficients apart; more budgets would"
        )
    if condition > WORST_CONDITION:
        return "ill_conditioned", (
            f"the runs hardly tell the coefficients apart (condition number {condition:.2g}); "
            "more budgets, or a wider range of sizes, would"
        )
    return "converged", f"surface through {len(data)} runs"
