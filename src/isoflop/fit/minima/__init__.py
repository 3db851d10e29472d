"""Minima of curves of loss over parameters: the estimators that look at one budget only."""

from __future__ import annotations

from isoflop.fit.minima.akima import AKIMA
from isoflop.fit.minima.minimum import CurveEstimator
from isoflop.fit.minima.parabola import PARABOLA
from isoflop.fit.settings import Estimator

CURVE_ESTIMATORS: dict[Estimator, CurveEstimator] = {one.name: one for one in (PARABOLA, AKIMA)}
"""By name. A new one is a file of this folder and its name here."""
