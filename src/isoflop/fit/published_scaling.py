"""The published lines of loss against compute of arXiv 2502.13189, fitted again from its curves.

How the lines were fitted is not stated. Two methods are held against them: ours, least squares
through the ends of the curves, and least squares through their lower envelope.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from isoflop.config import Frozen
from isoflop.fit.intervals import Floats
from isoflop.fit.laws.power_law import fit_power_law
from isoflop.reference import ATTENTIONS, PublishedAttention, PublishedScaling, moba_scaling

RefitMethod = Literal["ends", "envelope"]


class Refit(Frozen):
    """A line L = a C^b through published curves, and how far from it the published one lies."""

    panel: str
    attention: PublishedAttention
    method: RefitMethod
    points: int
    a: float
    """Loss at 1 PFLOP/s-day, nats per token."""
    b: float
    a_difference: float
    """Of a, less the published one."""
    b_difference: float
    relative_difference: float
    """Largest distance of the two lines between the first and the last curve's end, as a share of
    the published loss."""


def refit_published_scaling() -> tuple[Refit, ...]:
    """Return refits of every panel and attention by both methods (arXiv 2502.13189)."""
    methods: tuple[RefitMethod, ...] = ("ends", "envelope")
    return tuple(
        _refit(panel.label, attention, method, panel.under(attention))
        for panel in moba_scaling().panels
        for attention in ATTENTIONS
        for method in methods
    )


def refit_table() -> pd.DataFrame:
    """Return `refit_published_scaling` as a table, a row per panel, attention and method."""
    return pd.DataFrame([one.model_dump() for one in refit_published_scaling()])


def lower_envelope(published: PublishedScaling) -> Floats:
    """Return the points, (n, 2) by compute, of any curve that none at less or equal compute beats.

    Only from the end of the smallest model's curve on: before it the envelope is that model's own
    early training, which no smaller model undercuts, and a line through it would be far too steep.
    A convex hull would keep a handful of points, and which ones depends on the axes being
    logarithmic.
    """
    points = np.array([point for curve in published.curves for point in curve])
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    before = np.minimum.accumulate(points[:, 1])[:-1]
    lowest = np.concatenate([[True], points[1:, 1] < before])
    first_end = published.ends[0][0]
    return np.asarray(points[lowest & (points[:, 0] >= first_end)])


def _refit(
    panel: str, attention: PublishedAttention, method: RefitMethod, published: PublishedScaling
) -> Refit:
    points = np.array(published.ends) if method == "ends" else lower_envelope(published)
    law = fit_power_law(points[:, 0], points[:, 1])
    assert law.k is not None
    assert law.a is not None
    # Lines in log space are farthest apart at an end.
    outer = [published.ends[0][0], published.ends[-1][0]]
    relative = max(abs(law.at(c) / (published.a * c**published.b) - 1) for c in outer)
    return Refit(
        panel=panel,
        attention=attention,
        method=method,
        points=len(points),
        a=law.k,
        b=law.a,
        a_difference=law.k - published.a,
        b_difference=law.a - published.b,
        relative_difference=relative,
    )
