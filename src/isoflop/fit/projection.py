"""The loss surface by variable projection: least squares on the loss, searching two exponents.

Both fits of the surface work in N / N0 and D / D0 with N0, D0 the geometric means of the data, so
that the coefficients are of order one whatever the scale, and both descend to full precision from
the best points of a coarse grid.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import OptimizeResult, least_squares, nnls

from isoflop.fit.minimum import Floats
from isoflop.fit.surface import SurfaceFit
from isoflop.fit.surface_data import (
    EXPONENTS,
    STARTS,
    SurfaceData,
    checked_runs,
    judged,
    thinned,
    too_few_pairs,
)

START_EXPONENTS = tuple(np.geomspace(0.03, 2.0, 12).tolist())
"""The grid of starts is every pair of these."""
REMEMBERED = 16
"""Tables whose fit is kept: Huber's fit of the same runs, with each of its deltas, starts there."""


def fit_variable_projection(
    parameters: ArrayLike,
    tokens: ArrayLike,
    losses: ArrayLike,
    *,
    starts: int = STARTS,
    equal_exponents: bool = False,
) -> SurfaceFit:
    """Fit the surface by least squares on the loss, searching alpha and beta alone.

    For given exponents the loss is linear in E, A and B, which non-negative least squares
    solves exactly; what is left is a search in two dimensions, or in one.

    Args:
        parameters: N of each run.
        tokens: D of each run.
        losses: nats per token of each run.
        starts: how many of the best grid points are descended from.
        equal_exponents: hold alpha and beta equal, for grids at fixed tokens per parameter.

    Raises:
        ValueError: lengths differ, or a value is not positive and finite.
    """
    checked_runs(parameters, tokens, losses)
    given = (np.asarray(one, dtype=np.float64) for one in (parameters, tokens, losses))
    return _fitted(tuple(one.tobytes() for one in given), starts, equal_exponents)


@lru_cache(maxsize=REMEMBERED)
def _fitted(columns: tuple[bytes, ...], starts: int, equal_exponents: bool) -> SurfaceFit:
    """Return the fit of columns of float64, which as bytes can be looked up."""
    parameters, tokens, losses = map(np.frombuffer, columns)
    data = checked_runs(parameters, tokens, losses)
    refused = too_few_pairs("variable_projection", data, equal_exponents=equal_exponents)
    if refused is not None:
        return refused

    # The optimiser's tolerances are absolute, so losses are of order one whatever their unit.
    unit = float(data.losses.mean())
    scaled = replace(data, losses=data.losses / unit)
    rough = _Projection(thinned(scaled))
    free = 1 if equal_exponents else 2
    candidates = [np.array(one) for one in itertools.product(START_EXPONENTS, repeat=free)]
    candidates.sort(key=lambda one: float(np.sum(rough.residuals(one) ** 2)))
    found = [rough.descend(start) for start in candidates[:starts]]
    best = min(found, key=lambda one: float(one.cost))
    whole = _Projection(scaled)
    if len(data.losses) > len(rough.data.losses):
        best = whole.descend(best.x)
    alpha, beta = float(best.x[0]), float(best.x[-1])
    e, a, b = (float(value) * unit for value in whole.solve(best.x)[0])
    return judged(
        "variable_projection",
        data,
        data.surface(e, a, b, alpha, beta),
        bool(best.status > 0),
        equal_exponents=equal_exponents,
    )


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
