"""Loss surfaces over sizes and tokens: the estimators that look at all budgets."""

from __future__ import annotations

from isoflop.fit.settings import Estimator
from isoflop.fit.surfaces.data import SurfaceEstimator
from isoflop.fit.surfaces.huber import HUBER
from isoflop.fit.surfaces.projection import VARIABLE_PROJECTION

SURFACE_ESTIMATORS: dict[Estimator, SurfaceEstimator] = {
    one.name: one for one in (HUBER, VARIABLE_PROJECTION)
}
"""By name. A new one is a file of this folder and its name here."""
