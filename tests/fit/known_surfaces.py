"""Surfaces that are known, and runs drawn from them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from isoflop.fit import run_table
from isoflop.fit.surfaces.huber import fit_huber
from isoflop.fit.surfaces.projection import fit_variable_projection
from isoflop.fit.surfaces.surface import FlopsLaw, Surface

TRUE = Surface(E=1.7, A=400.0, B=1500.0, alpha=0.34, beta=0.37)
SYMMETRIC = Surface(E=1.7, A=400.0, B=400.0, alpha=0.34, beta=0.34)
ASYMMETRIC = Surface(E=1.7, A=400.0, B=90.0, alpha=0.45, beta=0.25)
CHINCHILLA = Surface(E=1.8172, A=482.01, B=2085.43, alpha=0.3478, beta=0.3658)
SIX_ND = FlopsLaw(slope=1.0, height=math.log(6))
SIZES = 1.6 ** np.arange(-3.0, 4)
FITS = {"Huber": fit_huber, "least squares": fit_variable_projection}

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""N, D and loss of runs."""


def optimum(surface: Surface, flops: float) -> float:
    """Return the optimal parameters for C = 6 N D (arXiv 2203.15556, equation 4)."""
    power = 1 / (surface.alpha + surface.beta)
    ratio = surface.alpha * surface.A / (surface.beta * surface.B)
    return float(ratio**power * (flops / 6) ** (surface.beta * power))


def along_budgets(
    surface: Surface, budgets: Sequence[float], factors: np.ndarray = SIZES, noise: float = 0.0
) -> Columns:
    """Return runs at `factors` times the best size of each budget, with noise on log loss."""
    n = np.concatenate([optimum(surface, c) * factors for c in budgets])
    return noisy(surface, n, np.repeat(budgets, len(factors)) / 6 / n, noise)


def crossed(
    surface: Surface = TRUE, noise: float = 0.0, seed: int = 0, shape: tuple[int, int] = (8, 6)
) -> Columns:
    """Return sizes of 2e7 to 2e9, each at tokens of 1e9 to 5e10."""
    n, d = np.meshgrid(np.geomspace(2e7, 2e9, shape[0]), np.geomspace(1e9, 5e10, shape[1]))
    return noisy(surface, n.ravel(), d.ravel(), noise, seed)


def noisy(
    surface: Surface, n: np.ndarray, d: np.ndarray, noise: float | np.ndarray, seed: int = 0
) -> Columns:
    """Return runs with noise on log loss, its standard deviation of all or of each."""
    draws = np.random.default_rng(seed).standard_normal(len(n))
    return n, d, surface.loss(n, d) * np.exp(noise * draws)


def table_of(columns: Columns, *, tolerance: float = 0, **others: object) -> pd.DataFrame:
    """Return runs as a table; `others` are further columns."""
    rows = pd.DataFrame(dict(zip(("parameters", "tokens", "loss"), columns, strict=True)))
    return run_table(rows.assign(**others), tolerance=tolerance).table
