"""The loss surface by variable projection: least squares on the loss, searching two exponents."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import OptimizeResult, least_squares, nnls

from isoflop.fit.intervals import Floats
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces.data import EXPONENTS, SurfaceData, SurfaceEstimator
from isoflop.fit.surfaces.surface import Surface

START_EXPONENTS = tuple(np.geomspace(0.03, 2.0, 12).tolist())
"""The grid of starts is every pair of these."""
STARTS = 8
"""Points of this grid, the best ones, that are descended from."""
REMEMBERED = 32
"""Searches that are kept: Huber's of the same runs start there, by every delta."""


def search(data: SurfaceData, settings: FitSettings) -> tuple[Surface, bool]:
    """Return where least squares on the loss is lowest, searching alpha and beta alone.

    For given exponents the loss is linear in E, A and B, which non-negative least squares
    solves exactly; what is left is a search in two dimensions, or in one with `equal_exponents`.
    """
    return searched(data, settings.equal_exponents)


@lru_cache(maxsize=REMEMBERED)
def searched(data: SurfaceData, equal_exponents: bool) -> tuple[Surface, bool]:
    """Return the same for runs whose exponents may be held equal."""
    free = 1 if equal_exponents else 2
    # The optimiser's tolerances are absolute, so losses are of order one whatever their unit.
    unit = float(data.losses.mean())
    whole = _Projection(replace(data, losses=data.losses / unit))
    rough = _Projection(whole.data.thinned())
    candidates = [np.array(one) for one in itertools.product(START_EXPONENTS, repeat=free)]
    candidates.sort(key=lambda one: float(np.sum(rough.residuals(one) ** 2)))
    found = [rough.descend(start) for start in candidates[:STARTS]]
    best = min(found, key=lambda one: float(one.cost))
    if len(data) > len(rough.data):
        best = whole.descend(best.x)
    e, a, b = (float(value) * unit for value in whole.solve(best.x)[0])
    surface = data.surface(e, a, b, float(best.x[0]), float(best.x[-1]))
    return surface, bool(best.status > 0)


@dataclass(frozen=True)
class _Projection:
    """Residuals as a function of alpha and beta, or of both as one, the rest solved for."""

    data: SurfaceData

    def solve(self, exponents: Floats) -> tuple[Floats, Floats]:
        terms = self.data.terms(float(exponents[0]), float(exponents[-1]))
        return nnls(terms, self.data.losses)[0], terms

    def residuals(self, exponents: Floats) -> Floats:
        coefficients, terms = self.solve(exponents)
        return np.asarray(terms @ coefficients - self.data.losses)

    def jacobian(self, exponents: Floats) -> Floats:
        # Kaufman's approximation: the change of the terms, less what E, A and B take up.
        coefficients, terms = self.solve(exponents)
        logs = np.stack([-self.data.u, -self.data.v], axis=1)
        moved = logs * terms[:, 1:] * coefficients[1:]
        if len(exponents) == 1:
            moved = moved.sum(axis=1, keepdims=True)
        basis, _ = np.linalg.qr(terms[:, coefficients > 0])
        return np.asarray(moved - basis @ (basis.T @ moved))

    def descend(self, start: Floats) -> OptimizeResult:
        return least_squares(
            self.residuals,
            start,
            jac=self.jacobian,
            bounds=EXPONENTS,
            xtol=1e-15,
            ftol=1e-15,
            gtol=1e-15,
            max_nfev=500,
        )


VARIABLE_PROJECTION = SurfaceEstimator(
    "variable_projection", "least-squares surface", robust=False, search=search
)
fit_variable_projection = VARIABLE_PROJECTION.fit
