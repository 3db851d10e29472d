"""The loss surface by variable projection: least squares on the loss, searching two exponents."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.optimize import OptimizeResult, least_squares, nnls

from isoflop.fit.intervals import Floats
from isoflop.fit.settings import FitSettings
from isoflop.fit.surfaces.data import (
    EXPONENTS,
    SurfaceData,
    SurfaceEstimator,
    judged,
    too_few_pairs,
)
from isoflop.fit.surfaces.surface import SurfaceFit

START_EXPONENTS = tuple(np.geomspace(0.03, 2.0, 12).tolist())
"""The grid of starts is every pair of these."""
STARTS = 8
"""Points of this grid, the best ones, that are descended from."""
REMEMBERED = 16
"""Tables whose fit is kept: Huber's fit of the same runs, with each of its deltas, starts there."""


def fit_variable_projection(data: SurfaceData, settings: FitSettings | None = None) -> SurfaceFit:
    """Fit the surface by least squares on the loss, searching alpha and beta alone.

    For given exponents the loss is linear in E, A and B, which non-negative least squares
    solves exactly; what is left is a search in two dimensions, or in one with `equal_exponents`.
    """
    return _fitted(data, settings is not None and settings.equal_exponents)


@lru_cache(maxsize=REMEMBERED)
def _fitted(data: SurfaceData, equal_exponents: bool) -> SurfaceFit:
    made = SurfaceFit(
        estimator="variable_projection",
        status="not_converged",
        message="",
        points=len(data),
        equal_exponents=equal_exponents,
    )
    refused = too_few_pairs(data, made)
    if refused is not None:
        return refused
    # The optimiser's tolerances are absolute, so losses are of order one whatever their unit.
    unit = float(data.losses.mean())
    scaled = replace(data, losses=data.losses / unit)
    rough = _Projection(scaled.thinned())
    free = 1 if equal_exponents else 2
    candidates = [np.array(one) for one in itertools.product(START_EXPONENTS, repeat=free)]
    candidates.sort(key=lambda one: float(np.sum(rough.residuals(one) ** 2)))
    found = [rough.descend(start) for start in candidates[:STARTS]]
    best = min(found, key=lambda one: float(one.cost))
    whole = _Projection(scaled)
    if len(data) > len(rough.data):
        best = whole.descend(best.x)
    alpha, beta = float(best.x[0]), float(best.x[-1])
    e, a, b = (float(value) * unit for value in whole.solve(best.x)[0])
    return judged(data, made, data.surface(e, a, b, alpha, beta), bool(best.status > 0))


class _Projection:
    """Residuals of the loss as a function of alpha and beta, or of both as one, the rest solved
    for."""

    def __init__(self, data: SurfaceData) -> None:
        self.data = data

    def solve(self, exponents: Floats) -> tuple[Floats, Floats]:
        terms = self.data.terms(float(exponents[0]), float(exponents[-1]))
        coefficients, _ = nnls(terms, self.data.losses)
        return coefficients, terms

    def residuals(self, exponents: Floats) -> Floats:
        coefficients, terms = self.solve(exponents)
        return np.asarray(terms @ coefficients - self.data.losses)

    def jacobian(self, exponents: Floats) -> Floats:
        # Kaufman's approximation: the change of the terms, less what E, A and B take up.
        coefficients, terms = self.solve(exponents)
        u, v = self.data.u, self.data.v
        moved = np.stack(
            [-u * terms[:, 1] * coefficients[1], -v * terms[:, 2] * coefficients[2]], 1
        )
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
    "variable_projection", "least-squares surface", fit_variable_projection
)
